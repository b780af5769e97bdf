//go:build cluster

package main

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// fromEnv returns a number from the environment.
func fromEnv(t *testing.T, name string, byDefault uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// uniqueness is a run of TestUnique.
type uniqueness struct {
	*testing.T
	cluster *etcdtest.Cluster
	h       *history
	nodes   []*node
	ops     int64

	done, given, refused, killed atomic.Int64
}

// TestUnique: three plugins, each with its own engine, request and release addresses of one pool in an etcd of three members. Meanwhile
// plugins and members are killed, members are stopped, and their links to clients and to each other lose all packets or only the answers.
// No address is given twice, and in the end none is lost.
//
// OPS and SEED change the number and the choice of operations: make test-cluster OPS=10000 SEED=7. The timing is not reproducible.
func TestUnique(t *testing.T) {
	ops, seed := fromEnv(t, "OPS", 900), fromEnv(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("OPS=%d SEED=%d", ops, seed)
	u := &uniqueness{T: t, cluster: etcdtest.Start(t, 3), h: newHistory(), ops: int64(ops)}
	for i := range 3 {
		options := `{"pool":"lan"`
		if seed%2 == 0 {
			options += `,"prefetch":"3"`
		}
		if seed/2%2 == 0 {
			options += `,"quarantine":"1s"`
		}
		options += "}"
		u.nodes = append(u.nodes, newNode(t, u.cluster, i, options))
	}
	var working, troubling sync.WaitGroup
	calm := make(chan struct{})
	troubling.Go(func() { u.trouble(rand.New(rand.NewPCG(seed, 100)), calm) })
	for i, n := range u.nodes {
		working.Go(func() { u.work(n, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	working.Wait()
	close(calm)
	troubling.Wait()
	u.cluster.Await()
	u.judge()
}

// work is the calls of one engine.
func (u *uniqueness) work(n *node, rng *rand.Rand) {
	for u.done.Add(1) <= u.ops {
		if rng.IntN(60) == 0 {
			u.killed.Add(1)
			n.killAfter(time.Duration(rng.IntN(20000)) * time.Microsecond)
		}
		has := u.h.of(n.number)
		if len(has) > 30 || len(has) > 0 && rng.IntN(2) == 0 {
			addr := has[rng.IntN(len(has))]
			u.h.ending(addr)
			n.release(addr)
			continue
		}
		if addr, ok := n.ask(); ok {
			u.given.Add(1)
			u.h.gave(n.number, addr)
		} else {
			u.refused.Add(1)
		}
	}
	n.settle()
}

// trouble injects faults until calm is closed, and repairs the last one.
func (u *uniqueness) trouble(rng *rand.Rand, calm <-chan struct{}) {
	for {
		m := u.cluster.Members[rng.IntN(len(u.cluster.Members))]
		begin, end := m.Freeze, m.Thaw
		switch rng.IntN(6) {
		case 0:
			begin, end = m.Kill, m.Start
		case 1:
			begin, end = m.Cut, m.Heal
		case 2:
			begin, end = m.Mute, m.Heal
		case 3:
			begin, end = m.CutPeers, m.HealPeers
		case 4:
			begin, end = u.cluster.CutPeers, u.cluster.HealPeers
		}
		begin()
		over := pass(calm, time.Duration(rng.IntN(1500))*time.Millisecond)
		end()
		if over || pass(calm, time.Duration(rng.IntN(1500))*time.Millisecond) {
			return
		}
	}
}

// pass lets time pass. It returns true if calm was closed meanwhile.
func pass(calm <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-calm:
		return true
	case <-timer.C:
		return false
	}
}

// judge compares etcd with the engines in the end.
func (u *uniqueness) judge() {
	u.Helper()
	u.Logf("%d operations: %d addresses given, %d requests refused; %d plugins killed", u.ops, u.given.Load(), u.refused.Load(),
		u.killed.Load())
	if len(u.h.twice) > 0 {
		u.Errorf("given twice:\n%s", strings.Join(u.h.twice, "\n"))
	}
	if u.given.Load() < u.ops/10 {
		u.Errorf("only %d of %d operations gave an address", u.given.Load(), u.ops)
	}
	for _, n := range u.nodes {
		n.calmDown() // a killed plugin may have an op in its outbox
	}
	u.compare(u.h.all(), u.leases())
	for _, n := range u.nodes {
		n.leave()
	}
	if left := u.leases(); len(left) > 0 {
		u.Errorf("when all networks are gone etcd still has %q", left)
	}
}

// compare compares the addresses of the engines with those in etcd. A plugin that is killed between the removal of the intent and the
// answer leaves a lease without an answer; garbage collection needs endpoints to find it, and there are none here. The lease is removed
// with its network, as the next check shows.
func (u *uniqueness) compare(known, held []string) {
	u.Helper()
	for _, addr := range known {
		if !slices.Contains(held, addr) {
			u.Errorf("an engine has %s, and etcd does not", addr)
		}
	}
	unanswered := len(held) - len(known)
	u.Logf("%d leases without an answer, because the plugin was killed", unanswered)
	if int64(unanswered) > 1+u.killed.Load()/50 {
		u.Errorf("held are %q, the engines know of %q", held, known)
	}
}

// leases lists the addresses that containers have in etcd, in order, without prefetched ones and cooldowns.
func (u *uniqueness) leases() []string {
	u.Helper()
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: u.cluster.Endpoints(), Prefix: "/unique"})
	if err != nil {
		u.Fatal(err)
	}
	defer s.Close()
	found := []string{}
	err = s.Range(u.Context(), "ipam/lease/", func(kv store.KV) error {
		value := string(kv.Value)
		if !strings.Contains(value, `"kind":"reserve"`) && !strings.Contains(value, `"kind":"resting"`) {
			found = append(found, kv.Key[strings.LastIndexByte(kv.Key, '/')+1:])
		}
		return nil
	})
	if err != nil {
		u.Fatal(err)
	}
	return found
}
