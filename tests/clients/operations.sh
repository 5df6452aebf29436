#!/usr/bin/env bash
# The commands of docs/operations.md, run on real processes: three members with TLS and users, a backup, a member lost for
# good and replaced, a learner, a full quota. Usage: operations.sh BINNACLE [PORT]. Needs openssl and curl.
# Ends with a non-zero status at the first command that does not do what the page says.
set -euo pipefail
binnacle=$1 port=${2:-22010}
work=$(mktemp -d "${TMPDIR:-/tmp}/operations.XXXXXX")
declare -A pids=()
trap 'for name in "${!pids[@]}"; do kill -9 "${pids[$name]}" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"' EXIT
fail() { echo "operations: $*" >&2; tail -n 3 "$work"/*.log >&2 || true; exit 1; }
step() { echo "operations: $*"; }
# Repeats a command until it succeeds, for some minutes at most.
until_it_works() { for _ in $(seq 300); do if "$@" >"$work/last" 2>&1; then return; fi; sleep 0.5; done; cat "$work/last" >&2; fail "never worked: $*"; }
# For `until_it_works`: a change of members whose answer was lost has happened, and would be refused the second time.
listed() { etcdctl member list >"$work/members" && grep -F -- "$1" "$work/members" >/dev/null; }
is_removed() { if listed "$1, "; then etcdctl member remove "$1" || true; fi; etcdctl member list >"$work/members" && ! grep -F -- "$1, " "$work/members"; }
is_added() { listed "$2" || etcdctl member add "$1" --peer-urls "$2" --learner; }
is_promoted() { etcdctl member list | grep -E "^$1, .*, false\$" || etcdctl member promote "$1"; }
knows() { [ "$(etcdctl --endpoints "$1" get "$2" --print-value-only)" = "$3" ]; }
member_of() { etcdctl member list | awk -F', ' -v url="$1" '$4 == url {print $1}'; }
three_members() { etcdctl member list >"$work/members" && [ "$(wc -l <"$work/members")" = 3 ]; }
export ETCDCTL_COMMAND_TIMEOUT=60s ETCDCTL_DIAL_TIMEOUT=20s
ln -s "$(realpath "$binnacle")" "$work/etcd"; ln -s "$(realpath "$binnacle")" "$work/etcdctl"
export PATH="$work:$PATH"
cd "$work"

client() { echo "https://127.0.0.1:$((port + 2 * ${1#m}))"; }
peer() { echo "https://127.0.0.1:$((port + 2 * ${1#m} + 1))"; }

step "certificates"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=store-ca -keyout ca.key -out ca.crt 2>/dev/null
issue() { # NAME EXTENSIONS
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile <(printf '%s\n' "$2") -out "$1.crt" 2>/dev/null
}
for name in m1 m2 m3 m4; do
  issue "$name" $'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth'
done
issue operator 'extendedKeyUsage=clientAuth'

start() { # NAME STATE INITIAL_CLUSTER [FLAGS...]
  local name=$1 state=$2 initial=$3; shift 3
  etcd --name "$name" --data-dir "$name.data" \
    --listen-client-urls "$(client "$name")" --advertise-client-urls "$(client "$name")" \
    --listen-peer-urls "$(peer "$name")" --initial-advertise-peer-urls "$(peer "$name")" \
    --initial-cluster "$initial" --initial-cluster-state "$state" --initial-cluster-token store-1 \
    --cert-file "$name.crt" --key-file "$name.key" --trusted-ca-file ca.crt --client-cert-auth \
    --peer-cert-file "$name.crt" --peer-key-file "$name.key" --peer-trusted-ca-file ca.crt --peer-client-cert-auth \
    --bcrypt-cost 4 "$@" >>"$name.log" 2>&1 &
  pids[$name]=$!
}
stop() { kill "${pids[$1]}" && wait "${pids[$1]}" || true; unset "pids[$1]"; }

step "three members"
initial="m1=$(peer m1),m2=$(peer m2),m3=$(peer m3)"
for name in m1 m2 m3; do start "$name" new "$initial"; done
export ETCDCTL_CACERT=ca.crt ETCDCTL_CERT=operator.crt ETCDCTL_KEY=operator.key
export ETCDCTL_ENDPOINTS="$(client m1),$(client m2),$(client m3)"
until_it_works etcdctl endpoint health
until_it_works three_members
etcdctl endpoint status -w table >/dev/null
etcdctl put greeting hello >/dev/null

step "users and roles"
etcdctl user add root:secret >/dev/null; etcdctl user grant-role root root >/dev/null
etcdctl role add app >/dev/null
etcdctl role grant-permission app readwrite app/ --prefix >/dev/null
etcdctl user add ana:pass >/dev/null; etcdctl user grant-role ana app >/dev/null
etcdctl auth enable >/dev/null
# With --client-cert-auth the certificate's common name is the user, unless a name is given.
if etcdctl put greeting again >/dev/null 2>&1; then fail "a user without a role could write"; fi
etcdctl --user ana:pass put app/key value >/dev/null
if etcdctl --user ana:pass get greeting >/dev/null 2>&1; then fail "ana read what is not hers"; fi
export ETCDCTL_USER=root:secret

step "a backup, and what is in it"
etcdctl --endpoints "$(client m1)" snapshot save backup.db >/dev/null 2>&1
etcdctl snapshot status backup.db -w table >/dev/null

step "a member is lost for good, and replaced"
kill -9 "${pids[m3]}"; wait "${pids[m3]}" 2>/dev/null || true; unset 'pids[m3]'; rm -r m3.data
export ETCDCTL_ENDPOINTS="$(client m1),$(client m2)"
until_it_works etcdctl put while-two run
lost=$(member_of "$(peer m3)")
until_it_works is_removed "$lost"
until_it_works is_added m3 "$(peer m3)"
start m3 existing "$initial"
new=$(member_of "$(peer m3)")
until_it_works is_promoted "$new"
export ETCDCTL_ENDPOINTS="$(client m1),$(client m2),$(client m3)"
until_it_works etcdctl endpoint health
until_it_works knows "$(client m3)" while-two run
until_it_works three_members

step "a fourth member as a learner, and away again"
until_it_works is_added m4 "$(peer m4)"
start m4 existing "$initial,m4=$(peer m4)"
learns() { etcdctl member list | grep ', started, m4, .*, true$' >/dev/null; }
until_it_works learns
until_it_works is_removed "$(member_of "$(peer m4)")"
stop m4

step "history is compacted, and every member's file is tidied"
revision=$(etcdctl endpoint status -w json | grep -o '"revision":[0-9]*' | head -1 | cut -d: -f2)
etcdctl compaction "$revision" >/dev/null
etcdctl defrag --cluster >/dev/null

step "a full quota, and the way out"
for name in m1 m2 m3; do stop "$name"; start "$name" new "$initial" --quota-backend-bytes=400000; until_it_works etcdctl endpoint health --cluster; done
head -c 150000 /dev/zero | tr '\0' x >value
filled=
for n in 1 2 3 4; do etcdctl put "big$n" <value >/dev/null 2>last || filled=yes; done
[ "$filled" = yes ] || fail "the quota was never full"
grep -q 'database space exceeded' last || fail "refused with another text: $(cat last)"
etcdctl alarm list | grep NOSPACE >/dev/null || fail "no alarm"
etcdctl del big --prefix >/dev/null
revision=$(etcdctl endpoint status -w json | grep -o '"revision":[0-9]*' | head -1 | cut -d: -f2)
etcdctl compaction "$revision" >/dev/null; etcdctl defrag --cluster >/dev/null; etcdctl alarm disarm >/dev/null
until_it_works etcdctl put small value
[ -z "$(etcdctl alarm list)" ] || fail "an alarm is left"

step "health and metrics"
get() { curl -s --cacert ca.crt --cert operator.crt --key operator.key "$(client m1)$1"; }
get /health | grep '"health":"true"' >/dev/null || fail "not healthy"
get /readyz?verbose | grep 'ok$' >/dev/null || fail "not ready"
get /metrics | grep '^etcd_server_has_leader 1$' >/dev/null || fail "no leader in the metrics"

step "all is lost, and the backup is restored"
for name in m1 m2 m3; do stop "$name"; mv "$name.data" "$name.old"; done
for name in m1 m2 m3; do
  binnacle_restore=(store restore backup.db --name "$name" --data-dir "$name.data" --initial-cluster "$initial"
    --initial-cluster-token store-1 --initial-advertise-peer-urls "$(peer "$name")")
  "$binnacle" "${binnacle_restore[@]}" >/dev/null 2>"$name.restore" || { cat "$name.restore" >&2; fail "restore of $name"; }
done
for name in m1 m2 m3; do start "$name" existing "$initial"; done
until_it_works etcdctl endpoint health
[ "$(etcdctl get greeting --print-value-only)" = hello ] || fail "the backup has another greeting"
[ -z "$(etcdctl get while-two)" ] || fail "the backup knows what came later"
echo "operations: all of it worked"
