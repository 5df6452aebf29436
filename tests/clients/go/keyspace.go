package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

func values(kvs []*mvccpb.KeyValue) string {
	var all []string
	for _, kv := range kvs {
		all = append(all, string(kv.Key)+"="+string(kv.Value))
	}
	return strings.Join(all, " ")
}

func keys(ctx context.Context, c *cluster) error {
	for i := range 5 {
		if _, err := c.client.Put(ctx, fmt.Sprintf("k/%d", i), fmt.Sprint(9-i)); err != nil {
			return err
		}
	}
	put, err := c.client.Put(ctx, "k/4", "new", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	byValue, err := c.client.Get(ctx, "k/", clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(2))
	if err != nil {
		return err
	}
	before, err := c.client.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision-1))
	if err != nil {
		return err
	}
	count, err := c.client.Get(ctx, "k/1", clientv3.WithRange("k/4"), clientv3.WithCountOnly(),
		clientv3.WithSerializable(), clientv3.WithRev(put.Header.Revision)) // the revision: a follower may be behind
	if err != nil {
		return err
	}
	deleted, err := c.client.Delete(ctx, "k/2", clientv3.WithFromKey(), clientv3.WithRange("k/4"), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	_, tooFar := c.client.Get(ctx, "k/", clientv3.WithRev(1<<40))
	_, empty := c.client.Put(ctx, "", "x")
	_, big := c.client.Put(ctx, "k/big", strings.Repeat("x", 1600*1024))
	return want(
		"previous value", string(put.PrevKv.Value), "5",
		"sorted by value", values(byValue.Kvs), "k/3=6 k/2=7",
		"more", byValue.More, true, "count of all", byValue.Count, 5,
		"at an earlier revision", values(before.Kvs), "k/0=9 k/1=8 k/2=7 k/3=6 k/4=5",
		"count only", count.Count, 3,
		"deleted", values(deleted.PrevKvs), "k/2=7 k/3=6",
		"a future revision", errors.Is(tooFar, rpctypes.ErrFutureRev), true,
		"an empty key", errors.Is(empty, rpctypes.ErrEmptyKey), true,
		"a large request", errors.Is(big, rpctypes.ErrRequestTooLarge), true,
	)
}

func transactions(ctx context.Context, c *cluster) error {
	done, err := c.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("t/a"), "=", 0)).
		Then(clientv3.OpPut("t/a", "1"), clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Version("t/a"), "=", 0)}, // every comparison is made before the first write
			[]clientv3.Op{clientv3.OpPut("t/b", "nested"), clientv3.OpGet("t/", clientv3.WithPrefix())}, nil)).
		Else(clientv3.OpGet("t/a")).Commit()
	if err != nil {
		return err
	}
	nested := done.Responses[1].GetResponseTxn()
	if !nested.Succeeded {
		return errors.New("the nested comparison failed")
	}
	again, err := c.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version("t/").WithPrefix(), ">", 1)).
		Then(clientv3.OpDelete("t/", clientv3.WithPrefix())).
		Else(clientv3.OpGet("t/a"), clientv3.OpDelete("t/b", clientv3.WithPrevKV())).Commit()
	if err != nil {
		return err
	}
	_, twice := c.client.Txn(ctx).Then(clientv3.OpPut("t/a", "1"), clientv3.OpPut("t/a", "2")).Commit()
	var many []clientv3.Op
	for i := range 129 {
		many = append(many, clientv3.OpPut(fmt.Sprintf("t/%d", i), ""))
	}
	_, tooMany := c.client.Txn(ctx).Then(many...).Commit()
	return want(
		"first", done.Succeeded, true,
		"nested read sees its own writes", values(nested.Responses[1].GetResponseRange().Kvs), "t/a=1 t/b=nested",
		"one revision", done.Header.Revision, nested.Responses[1].GetResponseRange().Kvs[1].ModRevision,
		"second", again.Succeeded, false,
		"deleted", values(again.Responses[1].GetResponseDeleteRange().PrevKvs), "t/b=nested",
		"a key put twice", errors.Is(twice, rpctypes.ErrDuplicateKey), true,
		"129 operations", errors.Is(tooMany, rpctypes.ErrTooManyOps), true,
	)
}

func watches(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := c.client.Put(ctx, "w/a", "1")
	if err != nil {
		return err
	}
	all := c.client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(first.Header.Revision))
	deletes := c.client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	if created := <-deletes; !created.Created {
		return fmt.Errorf("no notice of the watch's creation: %v", created)
	}
	for _, value := range []string{"2", "3"} {
		if _, err := c.client.Put(ctx, "w/a", value); err != nil {
			return err
		}
	}
	last, err := c.client.Delete(ctx, "w/a")
	if err != nil {
		return err
	}
	var seen []string
	for len(seen) < 4 {
		answer, open := <-all
		if !open || answer.Err() != nil {
			return fmt.Errorf("the watch ended: %w", answer.Err())
		}
		for _, event := range answer.Events {
			previous := ""
			if event.PrevKv != nil {
				previous = string(event.PrevKv.Value)
			}
			seen = append(seen, fmt.Sprintf("%s:%s<%s", event.Type, event.Kv.Value, previous))
		}
	}
	deleted := <-deletes
	if err := c.client.RequestProgress(ctx); err != nil {
		return err
	}
	progress := <-all
	if _, err := c.client.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	lost := <-c.client.Watch(ctx, "w/a", clientv3.WithRev(first.Header.Revision))
	_, compacted := c.client.Get(ctx, "w/a", clientv3.WithRev(first.Header.Revision))
	return want(
		"events", seen, "[PUT:1< PUT:2<1 PUT:3<2 DELETE:<3]",
		"filtered", len(deleted.Events), 1, "revision", deleted.Events[0].Kv.ModRevision, last.Header.Revision,
		"progress", progress.IsProgressNotify(), true,
		"compacted watch", errors.Is(lost.Err(), rpctypes.ErrCompacted), true,
		"which says where history begins", lost.CompactRevision, last.Header.Revision,
		"compacted read", errors.Is(compacted, rpctypes.ErrCompacted), true,
	)
}

func leases(ctx context.Context, c *cluster) error {
	short, err := c.client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	long, err := c.client.Grant(ctx, 3)
	if err != nil {
		return err
	}
	alive, err := c.client.KeepAlive(ctx, long.ID)
	if err != nil {
		return err
	}
	for key, lease := range map[string]clientv3.LeaseID{"l/short": short.ID, "l/long": long.ID} {
		if _, err := c.client.Put(ctx, key, "", clientv3.WithLease(lease)); err != nil {
			return err
		}
	}
	kept := 0
	for deadline := time.After(6 * time.Second); ; {
		select {
		case answer, open := <-alive:
			if !open {
				return fmt.Errorf("the kept lease ended")
			}
			kept++
			if answer.TTL != 3 {
				return fmt.Errorf("kept alive with TTL %d", answer.TTL)
			}
			continue
		case <-deadline:
		}
		break
	}
	left, err := c.client.Get(ctx, "l/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	info, err := c.client.TimeToLive(ctx, long.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	gone, err := c.client.TimeToLive(ctx, short.ID)
	if err != nil {
		return err
	}
	if _, err := c.client.Revoke(ctx, long.ID); err != nil {
		return err
	}
	_, twice := c.client.Revoke(ctx, long.ID)
	_, unknown := c.client.Put(ctx, "l/x", "", clientv3.WithLease(12345))
	after, err := c.client.Get(ctx, "l/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	return want(
		"kept alive", kept >= 3, true, "left", values(left.Kvs), "l/long=",
		"attached", string(info.Keys[0]), "l/long", "granted", info.GrantedTTL, 3,
		"an ended lease", gone.TTL, -1, "after the revocation", after.Count, 0,
		"revoked twice", errors.Is(twice, rpctypes.ErrLeaseNotFound), true,
		"unknown", errors.Is(unknown, rpctypes.ErrLeaseNotFound), true,
	)
}

func packages(ctx context.Context, c *cluster) error {
	spaced := namespace.NewKV(c.client.KV, "n/")
	if _, err := spaced.Put(ctx, "a", "1"); err != nil {
		return err
	}
	inside, err := spaced.Get(ctx, "", clientv3.WithFromKey())
	if err != nil {
		return err
	}
	cached, closeLeasing, err := leasing.NewKV(c.client, "leases/")
	if err != nil {
		return err
	}
	defer closeLeasing()
	if _, err := cached.Get(ctx, "n/a"); err != nil {
		return err
	}
	if _, err := cached.Put(ctx, "n/a", "2"); err != nil {
		return err
	}
	fromCache, err := cached.Get(ctx, "n/a")
	if err != nil {
		return err
	}
	ordered := ordering.NewKV(c.client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		return errors.New("a revision went back")
	})
	for range 20 {
		if _, err := ordered.Put(ctx, "n/o", ""); err != nil {
			return err
		}
		if _, err := ordered.Get(ctx, "n/o"); err != nil {
			return err
		}
	}
	syncer := mirror.NewSyncer(c.client, "n/", 0)
	bases, problems := syncer.SyncBase(ctx)
	mirrored := 0
	for base := range bases {
		mirrored += len(base.Kvs)
	}
	if err := <-problems; err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := syncer.SyncUpdates(ctx)
	if _, err := c.client.Put(ctx, "n/u", "3"); err != nil {
		return err
	}
	update := <-updates
	manager, err := endpoints.NewManager(c.client, "services/a")
	if err != nil {
		return err
	}
	if err := manager.AddEndpoint(ctx, "services/a/1", endpoints.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
		return err
	}
	named, err := manager.List(ctx)
	// List reads serializably: a follower may answer from before the put, in real etcd too.
	for err == nil && len(named) == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		named, err = manager.List(ctx)
	}
	if err != nil {
		return err
	}
	return want(
		"inside the namespace", values(inside.Kvs), "a=1", "through the cache", values(fromCache.Kvs), "n/a=2",
		"mirrored", mirrored, 2, "update", string(update.Events[0].Kv.Key), "n/u",
		"named", named["services/a/1"].Addr, "10.0.0.1:80",
	)
}

func maintenance(ctx context.Context, c *cluster) error {
	members, err := c.client.MemberList(ctx)
	if err != nil {
		return err
	}
	revision, err := c.client.Get(ctx, "x")
	if err != nil {
		return err
	}
	hashes, leaders := map[uint32]bool{}, map[uint64]bool{}
	for _, endpoint := range c.endpoints {
		status, err := c.client.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		leaders[status.Leader] = true
		hash, err := c.client.HashKV(ctx, endpoint, revision.Header.Revision)
		if err != nil {
			return err
		}
		hashes[hash.Hash] = true
		if _, err := c.client.Defragment(ctx, endpoint); err != nil {
			return err
		}
	}
	alarms, err := c.client.AlarmList(ctx)
	if err != nil {
		return err
	}
	if err := c.client.Sync(ctx); err != nil {
		return err
	}
	return want("members", len(members.Members), 3, "leaders", len(leaders), 1, "hashes", len(hashes), 1,
		"alarms", len(alarms.Alarms), 0, "endpoints after Sync", len(c.client.Endpoints()), 3)
}
