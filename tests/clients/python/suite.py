"""Two Python clients do their work against a cluster of real processes.

etcd-sdk-python speaks gRPC, etcd3gw the JSON gateway. Reads STORES and PID1.. from the environment. Each step says
"ok NAME" or "FAILED NAME: why"; ends with "N passed, N failed" and exits 1 if any failed.
"""

import os
import signal
import sys
import threading
import time
import traceback

import etcd3gw
import pyetcd
from pyetcd.client import Endpoint, MultiEndpointEtcd3Client

STORES = [url.removeprefix("http://").split(":") for url in os.environ["STORES"].split(",")]
PROCESSES = [int(os.environ[f"PID{number}"]) for number in range(1, len(STORES) + 1)]


def grpc_client():
    """A client of all members that goes on with the next one when one fails."""
    endpoints = [Endpoint(host, int(port), secure=False, time_retry=1.0) for host, port in STORES]
    return MultiEndpointEtcd3Client(endpoints, timeout=5, failover=True)


def single(position):
    host, port = STORES[position]
    return pyetcd.Etcd3Client(host=host, port=int(port), timeout=5)


def gateway(position):
    host, port = STORES[position]
    return etcd3gw.client(host=host, port=int(port), api_path="/v3/")


def equal(name, got, wanted):
    assert got == wanted, f"{name}: got {got!r}, want {wanted!r}"


def again(work, seconds=20):
    """Repeats until a member answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except (pyetcd.exceptions.Etcd3Exception, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def keys():
    client = grpc_client()
    for number in range(5):
        client.put(f"k/{number}", str(9 - number))
    value, meta = client.get("k/1")
    equal("get", (value, meta.version), (b"8", 1))
    found = [value for value, _ in client.get_prefix("k/", sort_order="ascend", sort_target="value")]
    equal("sorted", found, [b"5", b"6", b"7", b"8", b"9"])
    equal("range", len(list(client.get_range("k/1", "k/4"))), 3)
    equal("previous", client.put("k/1", "new", prev_kv=True).prev_kv.value, b"8")
    equal("put if absent", [client.put_if_not_exists("k/6", "a"), client.put_if_not_exists("k/6", "b")], [True, False])
    equal("replace", [client.replace("k/6", "x", "c"), client.replace("k/6", "a", "c")], [False, True])
    equal("delete", client.delete("k/6"), True)
    equal("delete again", client.delete("k/6"), False)
    equal("delete all", client.delete_prefix("k/").deleted, 5)
    equal("missing", client.get("k/1")[0], None)


def transactions():
    client = grpc_client()
    operations = client.transactions
    done, answers = client.transaction(
        compare=[operations.version("t/a") == 0],
        success=[operations.put("t/a", "1"), operations.txn([operations.version("t/a") == 0], [operations.put("t/b", "2")], []), operations.get("t/b")],
        failure=[],
    )
    equal("first", (done, answers[2][0][0]), (True, b"2"))
    done, answers = client.transaction(
        compare=[operations.value("t/a") == "other"],
        success=[],
        failure=[operations.get("t/a"), operations.delete("t/b")],
    )
    equal("second", (done, answers[0][0][0], client.get("t/b")[0]), (False, b"1", None))
    revision = client.get("t/a")[1].mod_revision
    client.put("t/a", "3")
    client.compact(client.get("t/a")[1].mod_revision)
    _, cancel = client.watch("t/a")
    cancel()
    try:
        events, cancel = client.watch("t/a", start_revision=revision)
        next(events)
        raise AssertionError("a compacted revision was watched")
    except pyetcd.exceptions.RevisionCompactedError as error:
        assert error.compacted_revision > revision


def leases_and_locks():
    client = grpc_client()
    lease = client.lease(2)
    client.put("l/a", "x", lease=lease)
    equal("keys", list(lease.keys), [b"l/a"])
    for _ in range(3):
        time.sleep(1)
        lease.refresh()
    equal("refreshed", client.get("l/a")[0], b"x")
    deadline = time.monotonic() + 15
    while client.get("l/a")[0] is not None:
        assert time.monotonic() < deadline, "the lease never ended"
        time.sleep(0.2)
    counter = [0]
    failures = []

    def work():
        try:
            own = grpc_client()
            for _ in range(4):
                with own.lock("counter", ttl=20) as lock:
                    assert lock.is_acquired()
                    seen = counter[0]
                    time.sleep(0.01)
                    counter[0] = seen + 1
        except Exception as error:  # told by the main thread
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    equal("failures", failures, [])
    equal("counter", counter[0], 12)


def members():
    client = grpc_client()
    equal("members", len(list(client.members)), 3)
    status = single(0).status()
    assert status.leader is not None and status.db_size > 0
    equal("alarms", list(client.list_alarms()), [])


def through_the_gateway():
    client, other = gateway(0), gateway(1)
    equal("members", len(client.members()), 3)
    assert client.put("g/a", "1")
    equal("get elsewhere", other.get("g/a"), [b"1"])
    equal("create", [client.create("g/b", "2"), client.create("g/b", "3")], [True, False])
    equal("replace", client.replace("g/b", "2", "4"), True)
    found = [(meta["key"], value) for value, meta in client.get_prefix("g/")]
    equal("prefix", found, [(b"g/a", b"1"), (b"g/b", b"4")])
    events, cancel = other.watch_prefix("g/")
    threading.Timer(0.5, lambda: (client.put("g/c", "5"), client.delete("g/a"))).start()
    put, delete = next(events), next(events)
    equal("watched put", (put["kv"]["key"], put["kv"]["value"]), (b"g/c", b"5"))
    equal("watched delete", (delete["type"], delete["kv"]["key"]), ("DELETE", b"g/a"))
    cancel()
    lease = client.lease(ttl=30)
    client.put("g/l", "x", lease=lease)
    equal("lease keys", lease.keys(), [b"g/l"])
    assert 0 < lease.refresh() <= 30
    lease.revoke()
    equal("after the revocation", other.get("g/l"), [])
    with client.lock("g", ttl=20) as lock:
        assert lock.is_acquired()
        assert not other.lock("g", ttl=20).acquire()
    equal("delete", client.delete_prefix("g/"), True)


def watch_through_kill():
    """Kills the leader while writing; a watcher that begins again behind its last event has seen all of history."""
    client = grpc_client()
    begin = client.put("r/begin", "").header.revision
    watched = {}
    failures = []

    def watch():
        following, position = begin, 0
        while "r/end" not in watched:
            position += 1
            try:
                own = single(position % len(STORES))
                events, cancel = own.watch_prefix("r/", start_revision=following)
                for event in events:
                    if event.mod_revision < following:
                        failures.append(f"{event.mod_revision} came after {following - 1}")
                    watched[event.key.decode()] = event.mod_revision
                    following = event.mod_revision + 1
                    if event.key == b"r/end":
                        break
                cancel()
            except pyetcd.exceptions.Etcd3Exception:
                time.sleep(0.2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    acknowledged = {}
    for number in range(150):
        if number == 50:
            leader = next(at for at in range(len(STORES)) if leads(at))
            os.kill(PROCESSES[leader], signal.SIGKILL)
        key = f"r/{number:03}"
        acknowledged[key] = again(lambda: client.put(key, "")).header.revision
    again(lambda: client.put("r/end", ""))
    watcher.join(30)
    equal("failures", failures, [])
    for key, revision in acknowledged.items():
        equal(key, watched.get(key), revision)


def leads(position):
    status = single(position).status()
    return status.leader is not None and any(
        f":{STORES[position][1]}" in url for url in status.leader.client_urls
    )


def main():
    steps = [keys, transactions, leases_and_locks, members, through_the_gateway, watch_through_kill]
    failed = 0
    for step in steps:
        started = time.monotonic()
        name = step.__name__.replace("_", " ")
        try:
            step()
            print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except BaseException as error:
            failed += 1
            print(f"FAILED {name}: {error}\n{traceback.format_exc()}", flush=True)
    print(f"{len(steps) - failed} passed, {failed} failed", flush=True)
    # A library's watch thread must not hold the end.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
