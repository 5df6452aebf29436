#!/usr/bin/env bash
# The same command lines through etcd's own etcdctl and through ours must print the same, byte for byte, and end with
# the same code. Each client gets a fresh server on the same ports, so ids, revisions and terms agree.
# Usage: same.sh OURS THEIRS SERVER [PORT], where SERVER is `binnacle store` or `etcd`; OURS and THEIRS are etcdctl.
# The lines: tests/clients/same.commands. Ends with a non-zero status and a diff at the first difference.
set -euo pipefail
ours=$(realpath -s "$1") theirs=$(realpath -s "$2") server=$3 port=${4:-21020}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/same-clients.XXXXXX")
pid=
stop() { if [ -n "$pid" ]; then kill "$pid" && wait "$pid" || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT
endpoint=127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))

serve() { # DATA_DIR
  # shellcheck disable=SC2086 # a program and perhaps a subcommand
  $server --name m1 --data-dir "$1" --listen-client-urls "http://$endpoint" --advertise-client-urls "http://$endpoint" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "m1=$peer" >"$work/log" 2>&1 &
  pid=$!
  for _ in $(seq 150); do
    if "$theirs" --endpoints "$endpoint" endpoint health >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  tail -5 "$work/log" >&2
  echo "same: $server did not start" >&2
  exit 1
}

# What no two runs have in common: ids of leases, times, sizes, positions in the log, and the log lines of etcd's client.
plain() {
  grep -av '^{"level":' | sed -E \
    -e 's/\b[0-9a-f]{16}\b( (granted|revoked|keepalived|already))/LEASE\1/g' -e 's/^[0-9a-f]{15,16}$/LEASE/' \
    -e 's/("(ID|id|lease)":)[0-9]{15,}/\1LEASE/g' -e 's/^("(ID|Lease|PrevLease)" : )[0-9]{15,}$/\1LEASE/' \
    -e 's/remaining\([0-9]+s\)/remaining(N)/' -e 's/("ttl":)[0-9]+/\1N/' -e 's/^("TTL" : )[0-9]+/\1N/' \
    -e 's/[0-9.]+(ms|µs|s)\b/TIME/g' \
    -e 's/("(dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|raft_index)":)[0-9]+/\1N/g' \
    -e 's/^("(DBSize|RaftIndex|RaftAppliedIndex)" : )[0-9]+/\1N/' \
    -e 's/[0-9.]+ (B|kB|MB)/SIZE/g' -e 's/(, (true|false), (true|false), [0-9]+, )[0-9]+, [0-9]+/\1N, N/'
}

through() { # CLIENT OUTPUT
  mkdir "$work/folder"
  cat >"$work/bin-etcdctl" <<END
#!/bin/sh
exec "$1" --endpoints "$endpoint" "\$@"
END
  chmod +x "$work/bin-etcdctl"
  etcdctl() { "$work/bin-etcdctl" "$@"; }
  # Runs a command until it has printed so many lines, or has ended.
  lines() {
    local wanted=$1 process
    shift
    "$@" >printed 2>&1 &
    process=$!
    for _ in $(seq 300); do
      if [ "$(wc -l <printed)" -ge "$wanted" ] || ! kill -0 $process 2>/dev/null; then break; fi
      sleep 0.1
    done
    kill $process 2>/dev/null || true
    wait $process || echo "ended with $?"
    cat printed
  }
  (
    cd "$work/folder"
    export ETCDCTL_API=3 ENDPOINT=$endpoint etcdctl="$work/bin-etcdctl"
    while IFS= read -r line; do
      case $line in '' | '#'*) continue ;; esac
      code=0
      # Standard input is not the list of lines.
      eval "$line" >out 2>err </dev/null || code=$?
      printf '$ %s\n' "$line"
      plain <out || true
      plain <err | sed 's/^/stderr: /' || true
      printf 'code %s\n' "$code"
    done <"$here/same.commands"
  ) >"$2"
  rm -r "$work/folder"
}

for client in theirs ours; do
  serve "$work/data-$client"
  through "${!client}" "$work/$client"
  stop
done
if ! diff --text -U4 --label etcdctl --label ours "$work/theirs" "$work/ours"; then
  echo "same: our client prints something else than etcdctl (against $server)" >&2
  exit 1
fi
echo "same: $(grep -ac '^code ' "$work/ours") command lines agree (against $server)"
