// Etcd's own Go client does its work against a cluster of real processes.
//
// Reads STORES (client URLs, comma separated) and PID1.. (the members' processes, in the same order) from the
// environment. Each step says "ok NAME" or "FAILED NAME: why"; ends with "N passed, N failed" and exits 1 if any failed.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// cluster is what the steps know of the servers.
type cluster struct {
	endpoints []string
	processes []int
	client    *clientv3.Client
}

type step struct {
	name string
	run  func(context.Context, *cluster) error
}

func main() {
	c, err := connect()
	if err != nil {
		fmt.Println("FAILED to connect:", err)
		os.Exit(1)
	}
	steps := []step{
		{"puts, gets, sorts, limits and deletes", keys},
		{"transactions, nested and refused ones", transactions},
		{"a watch with filters, previous values and a lost history", watches},
		{"leases end, live on and carry keys", leases},
		{"namespace, leasing, ordering, mirror and naming packages", packages},
		{"a mutex lets one in at a time", mutex},
		{"an election has one leader and tells who", election},
		{"software transactions lose no money", moveMoney},
		{"members, status and hashes agree", maintenance},
		{"a watch misses nothing while the leader is killed", watchThroughKill},
		{"a lock outlives the killed leader", lockThroughKill},
		{"users, roles and ranges", users},
	}
	passed, failed := 0, 0
	for _, s := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		started := time.Now()
		if err := s.run(ctx, c); err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", s.name, err)
		} else {
			passed++
			fmt.Printf("ok %s (%.1f s)\n", s.name, time.Since(started).Seconds())
		}
		cancel()
	}
	_ = c.client.Close()
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func connect() (*cluster, error) {
	c := &cluster{endpoints: strings.Split(os.Getenv("STORES"), ",")}
	for i := range c.endpoints {
		process, err := strconv.Atoi(os.Getenv("PID" + strconv.Itoa(i+1)))
		if err != nil {
			return nil, err
		}
		c.processes = append(c.processes, process)
	}
	var err error
	c.client, err = c.open("", "")
	return c, err
}

func (c *cluster) open(user, password string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: c.endpoints, DialTimeout: 5 * time.Second, Username: user, Password: password, Logger: zap.NewNop(),
	})
}

// killLeader ends the leader's process with SIGKILL, at most one process a position: its supervisor starts another.
func (c *cluster) killLeader(ctx context.Context) error {
	for i, endpoint := range c.endpoints {
		status, err := c.client.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		if status.Leader != status.Header.MemberId {
			continue
		}
		if c.processes[i] == 0 {
			// It was killed before and has a new process: hand over to a member that was not.
			return c.handOver(ctx, i)
		}
		process := c.processes[i]
		c.processes[i] = 0
		return syscall.Kill(process, syscall.SIGKILL)
	}
	return fmt.Errorf("nobody leads")
}

func (c *cluster) handOver(ctx context.Context, leader int) error {
	for i, endpoint := range c.endpoints {
		if c.processes[i] == 0 {
			continue
		}
		status, err := c.client.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		direct, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints[leader : leader+1], Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer direct.Close()
		if _, err := direct.MoveLeader(ctx, status.Header.MemberId); err != nil {
			return err
		}
		return c.killLeader(ctx)
	}
	return fmt.Errorf("every member was killed once")
}

// whole waits until every member answers and all name the same leader.
func (c *cluster) whole(ctx context.Context) error {
	for {
		leaders := map[uint64]bool{}
		answers := 0
		for _, endpoint := range c.endpoints {
			short, cancel := context.WithTimeout(ctx, time.Second)
			status, err := c.client.Status(short, endpoint)
			cancel()
			if err == nil && status.Leader != 0 {
				answers++
				leaders[status.Leader] = true
			}
		}
		if answers == len(c.endpoints) && len(leaders) == 1 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not whole again: %d answers, leaders %v", answers, leaders)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// want names the first pair whose sides differ.
func want(pairs ...any) error {
	for i := 0; i+2 < len(pairs); i += 3 {
		if got, expected := fmt.Sprint(pairs[i+1]), fmt.Sprint(pairs[i+2]); got != expected {
			return fmt.Errorf("%v: got %s, want %s", pairs[i], got, expected)
		}
	}
	return nil
}
