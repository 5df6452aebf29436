#!/usr/bin/env bash
# Backups between a real etcd and ours, both ways: etcd -> ours -> etcd, with real etcdctl and etcdutl of 3.5.
# Usage: backup.sh BINNACLE ETCD_BIN_DIR. Ends with a non-zero status at the first difference.
set -euo pipefail
binnacle=$1 bin=$2 port=${3:-21010}
work=$(mktemp -d "${TMPDIR:-/tmp}/backup-clients.XXXXXX")
pid=
stop() { if [ -n "$pid" ]; then kill "$pid" && wait "$pid" || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT
endpoint=127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
ctl() { ETCDCTL_API=3 "$bin/etcdctl" --endpoints "$endpoint" "$@"; }
fail() { echo "backup: $*" >&2; exit 1; }

serve() { # DATA_DIR PROGRAM...
  local data=$1; shift
  "$@" --name m1 --data-dir "$data" --listen-client-urls "http://$endpoint" --advertise-client-urls "http://$endpoint" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "m1=$peer" >"$work/log" 2>&1 &
  pid=$!
  for _ in $(seq 100); do
    if ctl endpoint health >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  tail -5 "$work/log" >&2
  fail "$1 did not start on $data"
}

# All that a client sees: every pair with its revisions now and at an old revision, leases, hashes of history, users,
# roles.
seen() {
  ctl get "" --from-key -w fields | grep -vE '^"(ClusterID|MemberID|RaftTerm)"'
  ctl get "" --from-key --rev="$old" -w fields | grep -E '^"(Key|Value|CreateRevision|ModRevision|Version|Lease|Count)"'
  { ctl get k1 --rev=2 2>&1 || true; } | grep -o 'required revision has been compacted'
  ctl lease list | sort
  ctl lease timetolive "$lease" --keys | sed 's/remaining([0-9]*s)//'
  for revision in 0 "$old" 45; do ctl endpoint hashkv --rev="$revision" | cut -d, -f2; done
  ctl user get ada; ctl role get reader; ctl auth status | grep -v '^$'
}
compare() { diff "$work/first" "$work/now" || fail "$1 shows something else"; echo "backup: $1 shows the same"; }
restore_flags=(--name m1 --initial-cluster "m1=$peer" --initial-advertise-peer-urls "$peer")

serve "$work/etcd1" "$bin/etcd"
for n in $(seq 60); do ctl put "k$((n % 20))" "value $n" >/dev/null; done
head -c 300000 /dev/zero | tr '\0' x | ctl put large >/dev/null
printf '\n\nput t1 a\nput t2 b\nput t3 c\n\n\n' | sed '1{/^$/d}' | ctl txn >/dev/null
lease=$(ctl lease grant 6000 | awk '{print $2}')
ctl put leased x --lease="$lease" >/dev/null
old=$(ctl put k1 last -w json | grep -o '"revision":[0-9]*' | head -1 | cut -d: -f2)
ctl del k2 k5 >/dev/null
ctl compact 40 >/dev/null
ctl user add ada:secret >/dev/null; ctl role add reader >/dev/null
ctl role grant-permission reader --prefix=true read k >/dev/null; ctl user grant-role ada reader >/dev/null
seen >"$work/first"
ctl snapshot save "$work/one.db" >/dev/null 2>&1
stop

"$binnacle" store restore "$work/one.db" --data-dir "$work/ours" "${restore_flags[@]}"
theirs=$("$bin/etcdutl" snapshot status "$work/one.db" | cut -d, -f1-4)
ours=$("$binnacle" ctl snapshot status "$work/one.db" | cut -d, -f1-4)
[ "$theirs" = "$ours" ] || fail "status: etcdutl says $theirs, ours $ours"
serve "$work/ours" "$binnacle" store
seen >"$work/now"; compare "ours, restored from etcd's snapshot"
for client in "$bin/etcdctl" "$(command -v etcdctl || echo "$bin/etcdctl")"; do
  ETCDCTL_API=3 "$client" --endpoints "$endpoint" snapshot save "$work/two.db" >/dev/null 2>&1 || fail "$client snapshot save"
  ETCDCTL_API=3 "$client" snapshot status "$work/two.db" >/dev/null 2>&1 || fail "$client snapshot status"
done
offline=$("$binnacle" utl hashkv "$work/two.db" | cut -d, -f1)
online=$(ctl endpoint hashkv | sed 's/.*, //')
[ "$offline" = "$online" ] || fail "hash of the snapshot is $offline, of the member $online"
stop

theirs=$("$bin/etcdutl" snapshot status "$work/two.db" -w json)
ours=$("$binnacle" ctl snapshot status "$work/two.db" -w json | sed 's/,"version":.*}/}/')
[ "$theirs" = "$ours" ] || fail "status: etcdutl says $theirs, ours $ours"
"$bin/etcdutl" snapshot restore "$work/two.db" --data-dir "$work/etcd2" "${restore_flags[@]}" >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; fail "etcdutl snapshot restore"; }
serve "$work/etcd2" "$bin/etcd"
seen >"$work/now"; compare "etcd, restored from our snapshot"
ctl put after 1 >/dev/null
stop
