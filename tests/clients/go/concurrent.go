package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// together runs work in count goroutines and returns their errors.
func together(count int, work func(int) error) error {
	failures := make([]error, count)
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() { failures[i] = work(i) })
	}
	group.Wait()
	return errors.Join(failures...)
}

func mutex(ctx context.Context, c *cluster) error {
	counter := 0 // guarded by the mutex in the store alone
	err := together(4, func(int) error {
		session, err := concurrency.NewSession(c.client, concurrency.WithTTL(10))
		if err != nil {
			return err
		}
		defer session.Close()
		lock := concurrency.NewMutex(session, "m/")
		for range 5 {
			if err := lock.Lock(ctx); err != nil {
				return err
			}
			seen := counter
			time.Sleep(5 * time.Millisecond)
			counter = seen + 1
			if err := lock.Unlock(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	holder, err := concurrency.NewSession(c.client)
	if err != nil {
		return err
	}
	other, err := concurrency.NewSession(c.client)
	if err != nil {
		return err
	}
	defer other.Close()
	held, wanted := concurrency.NewMutex(holder, "m/"), concurrency.NewMutex(other, "m/")
	if err := held.Lock(ctx); err != nil {
		return err
	}
	taken := wanted.TryLock(ctx)
	if err := holder.Close(); err != nil { // ends the session: the lock goes with its lease
		return err
	}
	free := wanted.TryLock(ctx)
	return want("counter", counter, 20, "while held", errors.Is(taken, concurrency.ErrLocked), true, "after the session", free, nil)
}

func election(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sessions := make([]*concurrency.Session, 2)
	for i := range sessions {
		session, err := concurrency.NewSession(c.client)
		if err != nil {
			return err
		}
		defer session.Close()
		sessions[i] = session
	}
	first, second := concurrency.NewElection(sessions[0], "e"), concurrency.NewElection(sessions[1], "e")
	_, nobody := first.Leader(ctx)
	observed := second.Observe(ctx)
	if err := first.Campaign(ctx, "one"); err != nil {
		return err
	}
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	leader, err := second.Leader(ctx)
	if err != nil {
		return err
	}
	if seen := <-observed; string(seen.Kvs[0].Value) != "one" {
		return fmt.Errorf("observed %s first", seen.Kvs[0].Value)
	}
	if err := first.Proclaim(ctx, "still one"); err != nil {
		return err
	}
	if seen := <-observed; string(seen.Kvs[0].Value) != "still one" {
		return fmt.Errorf("observed %s after the proclamation", seen.Kvs[0].Value)
	}
	select {
	case <-won:
		return fmt.Errorf("two leaders")
	case <-time.After(300 * time.Millisecond):
	}
	if err := first.Resign(ctx); err != nil {
		return err
	}
	if err := <-won; err != nil {
		return err
	}
	next := <-observed
	return want("before", nobody, concurrency.ErrElectionNoLeader, "leader", string(leader.Kvs[0].Value), "one",
		"next", string(next.Kvs[0].Value), "two")
}

func moveMoney(ctx context.Context, c *cluster) error {
	const accounts, start = 5, 100
	for i := range accounts {
		if _, err := c.client.Put(ctx, fmt.Sprintf("s/%d", i), strconv.Itoa(start)); err != nil {
			return err
		}
	}
	for _, isolation := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		err := together(4, func(worker int) error {
			for i := range 10 {
				from, to := fmt.Sprintf("s/%d", (worker+i)%accounts), fmt.Sprintf("s/%d", (worker+2*i+1)%accounts)
				if from == to {
					continue
				}
				_, err := concurrency.NewSTM(c.client, func(stm concurrency.STM) error {
					a, errA := strconv.Atoi(stm.Get(from))
					b, errB := strconv.Atoi(stm.Get(to))
					stm.Put(from, strconv.Itoa(a-7))
					stm.Put(to, strconv.Itoa(b+7))
					return errors.Join(errA, errB)
				}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	all, err := c.client.Get(ctx, "s/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	sum := 0
	for _, kv := range all.Kvs {
		balance, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return err
		}
		sum += balance
	}
	return want("sum", sum, accounts*start)
}

// watchThroughKill writes 200 keys while the leader is killed. The watch must bring every revision of history, each once,
// and every acknowledged write must be in it.
func watchThroughKill(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin, err := c.client.Put(ctx, "r/begin", "")
	if err != nil {
		return err
	}
	watched := map[string]int64{}
	done := make(chan error, 1)
	go func() { done <- c.collect(clientv3.WithRequireLeader(ctx), begin.Header.Revision, watched) }()
	acknowledged := map[string]int64{}
	for i := range 200 {
		if i == 60 {
			if err := c.killLeader(ctx); err != nil {
				return err
			}
		}
		for {
			key := fmt.Sprintf("r/%03d", i)
			short, stop := context.WithTimeout(ctx, 3*time.Second)
			put, err := c.client.Put(short, key, "")
			stop()
			if err == nil {
				acknowledged[key] = put.Header.Revision
				break
			}
			if ctx.Err() != nil {
				return err
			}
		}
	}
	if _, err := c.client.Put(ctx, "r/end", ""); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	for key, revision := range acknowledged {
		if watched[key] != revision {
			return fmt.Errorf("%s was written at %d and watched at %d", key, revision, watched[key])
		}
	}
	history := map[string]int64{}
	if err := c.collect(ctx, begin.Header.Revision, history); err != nil {
		return err
	}
	if err := want("watched and read again", len(watched), len(history)); err != nil {
		return err
	}
	return c.whole(ctx)
}

// collect watches r/ from a revision until r/end; a watch that lost its leader is begun again behind the last event.
func (c *cluster) collect(ctx context.Context, revision int64, into map[string]int64) error {
	for ctx.Err() == nil {
		for answer := range c.client.Watch(ctx, "r/", clientv3.WithPrefix(), clientv3.WithRev(revision)) {
			if errors.Is(answer.Err(), rpctypes.ErrNoLeader) {
				break
			}
			if err := answer.Err(); err != nil {
				return err
			}
			for _, event := range answer.Events {
				if event.Kv.ModRevision < revision {
					return fmt.Errorf("revision %d came after %d", event.Kv.ModRevision, revision-1)
				}
				revision = event.Kv.ModRevision + 1
				into[string(event.Kv.Key)] = event.Kv.ModRevision
				if string(event.Kv.Key) == "r/end" {
					return nil
				}
			}
		}
	}
	return ctx.Err()
}

func lockThroughKill(ctx context.Context, c *cluster) error {
	session, err := concurrency.NewSession(c.client, concurrency.WithTTL(8))
	if err != nil {
		return err
	}
	defer session.Close()
	lock := concurrency.NewMutex(session, "survivor/")
	if err := lock.Lock(ctx); err != nil {
		return err
	}
	if err := c.killLeader(ctx); err != nil {
		return err
	}
	select { // longer than the lease: it lives only if the client's keep-alives reach the new leader
	case <-session.Done():
		return errors.New("the session ended with the leader")
	case <-time.After(11 * time.Second):
	}
	if err := c.whole(ctx); err != nil {
		return err
	}
	other, err := concurrency.NewSession(c.client)
	if err != nil {
		return err
	}
	defer other.Close()
	taken := concurrency.NewMutex(other, "survivor/").TryLock(ctx)
	owned, err := c.client.Txn(ctx).If(lock.IsOwner()).Commit()
	if err != nil {
		return err
	}
	return want("for others", taken, concurrency.ErrLocked, "still ours", owned.Succeeded, true)
}

func users(ctx context.Context, c *cluster) error {
	for _, change := range []func() error{
		func() error { _, err := c.client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.client.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.client.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := c.client.RoleGrantPermission(ctx, "reader", "u/", clientv3.GetPrefixRangeEnd("u/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := c.client.UserAdd(ctx, "ann", "pw"); return err },
		func() error { _, err := c.client.UserGrantRole(ctx, "ann", "reader"); return err },
		func() error { _, err := c.client.AuthEnable(ctx); return err },
	} {
		if err := change(); err != nil {
			return err
		}
	}
	root, err := c.open("root", "secret")
	if err != nil {
		return err
	}
	defer root.Close()
	ann, err := c.open("ann", "pw")
	if err != nil {
		return err
	}
	defer ann.Close()
	_, nobody := c.client.Get(ctx, "u/a")
	_, wrong := c.open("ann", "no")
	_, write := ann.Put(ctx, "u/a", "1")
	_, outside := ann.Get(ctx, "v/a")
	_, nested := ann.Txn(ctx).Then(clientv3.OpGet("u/a"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("u/a", "")}, nil)).Commit()
	_, ownRight := ann.Get(ctx, "u/", clientv3.WithPrefix())
	_, rootWrites := root.Put(ctx, "u/a", "1")
	if _, err := root.RoleRevokePermission(ctx, "reader", "u/", clientv3.GetPrefixRangeEnd("u/")); err != nil {
		return err
	}
	_, revoked := ann.Get(ctx, "u/", clientv3.WithPrefix())
	if _, err := root.AuthDisable(ctx); err != nil {
		return err
	}
	for _, user := range []string{"root", "ann"} {
		if _, err := c.client.UserDelete(ctx, user); err != nil {
			return err
		}
	}
	return want(
		"without a name", errors.Is(nobody, rpctypes.ErrUserEmpty), true,
		"with a wrong password", errors.Is(wrong, rpctypes.ErrAuthFailed), true,
		"a reader's write", errors.Is(write, rpctypes.ErrPermissionDenied), true,
		"outside the range", errors.Is(outside, rpctypes.ErrPermissionDenied), true,
		"a nested write", errors.Is(nested, rpctypes.ErrPermissionDenied), true,
		"inside the range", ownRight, nil, "root", rootWrites, nil,
		"after the revocation", errors.Is(revoked, rpctypes.ErrPermissionDenied), true,
	)
}
