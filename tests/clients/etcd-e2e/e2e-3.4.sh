#!/usr/bin/env bash
# etcd's own end-to-end tests (3.4.23, as Debian packages them) against our binary in the place of `etcd`.
#
#   tests/clients/etcd-e2e/e2e-3.4.sh [REGEX]      all tests of the v3 API, or those whose name matches
#
# Installs what it needs, builds the suite, runs every test in a process of its own, and compares with
# e2e-3.4.expected: a failure that is not listed there ends in status 1, and so does a run with fewer passes than BAR.
# Listed tests that pass are named. The suite has fixed ports, so two halves run at a time only where network namespaces
# can be made; otherwise one runs after the other. Only processes of this run are ended.
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/../../.."

BAR=200
folder=$(pwd)/target/etcd-e2e-3.4
expected=$(pwd)/tests/clients/etcd-e2e/e2e-3.4.expected
binary=${BINNACLE:-$(pwd)/target/debug/binnacle}
package=/usr/share/gocode/src/go.etcd.io/etcd
pattern=${1:-.}
# The v2 API was removed from etcd, and the tests of upgrades need an older etcd.
not_ours='^TestCtlV2|^TestV2|^TestRelease'

# Runs the tests named in the file $1, results into the file $2. Called in a namespace of its own where possible.
half() {
  local scratch name number log
  if [ -n "${ISOLATED:-}" ]; then ip link set lo up; fi
  scratch=$(mktemp -d)
  export TMPDIR=$scratch
  cd "$folder/cwd/tests"
  while read -r name; do
    log=$folder/logs/$name
    # A process group of its own cannot catch the servers (each has a terminal), so those left over are found by file.
    timeout -k 5 200 "$folder/e2e.test" -test.v -test.run "^$name\$" -test.timeout 180s \
      -bin-dir "$folder/bin" -cert-dir "$package/integration/fixtures" >"$log" 2>&1 </dev/null || true
    for number in $(ls /proc | grep '^[0-9]*$'); do
      if grep -qsF "$folder/bin/" "/proc/$number/cmdline" && [ "$number" != $$ ] && [ "$number" != "$BASHPID" ]; then
        kill -9 "$number" 2>/dev/null || true
      fi
    done
    if grep -q "^--- PASS: $name " "$log"; then echo "pass $name"; else echo "fail $name"; fi
  done <"$1" >"$2"
  rm -rf "$scratch"
}

run() {
  if unshare --net --pid --fork --kill-child --mount-proc ip link set lo up 2>/dev/null; then
    awk 'NR % 2' "$1" >"$folder/half-1"
    awk 'NR % 2 == 0' "$1" >"$folder/half-2"
    local part
    for part in 1 2; do
      ISOLATED=1 unshare --net --pid --fork --kill-child --mount-proc \
        bash "$self" --half "$folder/half-$part" "$folder/results-$part" &
    done
    wait
    cat "$folder/results-1" "$folder/results-2"
  else
    bash "$self" --half "$1" "$folder/results-1" >&2
    cat "$folder/results-1"
  fi
}

if [ "$pattern" = --half ]; then
  half "$2" "$3"
  exit
fi

if [ ! -d "$package/tests/e2e" ] || ! (type go etcdctl curl ip unshare) >/dev/null 2>&1; then
  apt-get update -qq && apt-get install -y -qq golang-etcd-server-dev golang-go etcd-client curl iproute2 util-linux >/dev/null
fi
mkdir -p "$folder/bin" "$folder/logs" "$folder/cwd/tests"
if [ ! -x "$folder/e2e.test" ]; then
  GO111MODULE=off GOPATH=/usr/share/gocode go test -c -o "$folder/e2e.test" go.etcd.io/etcd/tests/e2e
fi
ln -sf "$binary" "$folder/bin/etcd"
ln -sf "$(command -v etcdctl)" "$folder/bin/etcdctl"
# Some tests name files relative to where they are in etcd's sources.
ln -sfn "$package/integration" "$folder/integration"
cp tests/clients/etcd-e2e/etcd.conf.yml.sample "$folder/etcd.conf.yml.sample"

"$folder/e2e.test" -test.list . | grep '^Test' | grep -vE "$not_ours" | grep -E "$pattern" >"$folder/tests"
run "$folder/tests" >"$folder/results"
# On a busy machine a client's ten seconds can pass; what fails again fails.
sed -n 's/^fail //p' "$folder/results" | grep -vxFf <(sed 's/ .*//' "$expected") >"$folder/again" || true
if [ -s "$folder/again" ]; then
  echo "a second attempt for: $(tr '\n' ' ' <"$folder/again")"
  grep -vxFf <(sed 's/^/fail /' "$folder/again") "$folder/results" >"$folder/first" || true
  run "$folder/again" >"$folder/second"
  cat "$folder/first" "$folder/second" >"$folder/results"
fi

passed=$(grep -c '^pass ' "$folder/results" || true)
total=$(wc -l <"$folder/tests")
echo "$passed of $total tests passed; logs are in target/etcd-e2e-3.4/logs"
status=0
while read -r name; do
  if grep -q "^$name\( \|$\)" "$expected"; then continue; fi
  echo "unexpected failure: $name"
  tail -5 "$folder/logs/$name"
  status=1
done < <(sed -n 's/^fail //p' "$folder/results")
while read -r name _; do
  if grep -qx "pass $name" "$folder/results"; then echo "passes, although listed as a failure: $name"; fi
done <"$expected"
if [ "$pattern" = . ] && [ "$passed" -lt "$BAR" ]; then
  echo "fewer than $BAR passed"
  status=1
fi
exit "$status"
