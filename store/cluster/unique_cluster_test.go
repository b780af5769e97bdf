//go:build cluster

package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/test/etcdtest"
)

// setting is a number from the environment.
func setting(t *testing.T, name string, byDefault uint64) uint64 {
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

// history is what the engines of all nodes know: who has what.
type history struct {
	mu    sync.Mutex // guards has
	has   map[string]int
	twice []string

	done, claimed, refused, killed atomic.Int64
}

// gave notes that a node has given an address.
func (h *history) gave(node int, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, taken := h.has[key]; taken {
		h.twice = append(h.twice, fmt.Sprintf("%s: node %d has it, node %d gave it", key, other, node))
	}
	h.has[key] = node
}

// ending notes that a node's engine is about to release an address: from now on another may get it.
func (h *history) ending(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.has, key)
}

// of is what a node's engine has, in order.
func (h *history) of(node int) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []string
	for key, n := range h.has {
		if n == node {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// TestUnique: three nodes, each a process, claim and release addresses of one pool in an etcd of three members, while
// nodes and members are killed, members stand still and their links lose all or the answers alone. No address is given
// twice, and when all is well again none is lost.
//
// OPS and SEED change how long it takes and what happens: OPS=10000 SEED=7 go test -tags cluster -run TestUnique. The
// seed decides what is done; when it happens is the machine's.
func TestUnique(t *testing.T) {
	ops, seed := setting(t, "OPS", 900), setting(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("OPS=%d SEED=%d", ops, seed)
	c := etcdtest.Start(t, 3)
	h := &history{has: map[string]int{}}
	var nodes []*process
	for range 3 {
		p := &process{ledger: filepath.Join(t.TempDir(), "ledger.db"), endpoints: c.Endpoints()}
		if err := p.start(); err != nil {
			t.Fatal(err, &p.stderr)
		}
		nodes = append(nodes, p)
	}
	var working, troubling sync.WaitGroup
	calm := make(chan struct{})
	troubling.Go(func() { trouble(c, rand.New(rand.NewPCG(seed, 100)), calm) })
	for i, p := range nodes {
		working.Go(func() { work(t, h, i, p, rand.New(rand.NewPCG(seed, uint64(i))), int64(ops)) })
	}
	working.Wait()
	close(calm)
	troubling.Wait()
	c.Await()
	for i, p := range nodes {
		settle(t, h, i, p)
		defer p.kill()
	}
	if len(h.twice) > 0 {
		t.Errorf("given twice:\n%s", strings.Join(h.twice, "\n"))
	}
	compare(t, c, h, nodes)
	t.Logf("%d operations: %d claims, %d refused; %d nodes killed", h.done.Load(), h.claimed.Load(), h.refused.Load(),
		h.killed.Load())
	if h.claimed.Load() < int64(ops)/10 {
		t.Errorf("only %d claims of %d operations went well", h.claimed.Load(), ops)
	}
}

// work is one node's engine.
func work(t *testing.T, h *history, i int, p *process, rng *rand.Rand, ops int64) {
	for h.done.Add(1) <= ops {
		if rng.IntN(60) == 0 {
			h.killed.Add(1)
			after := time.AfterFunc(time.Duration(rng.IntN(3000))*time.Microsecond, p.kill)
			defer after.Stop()
		}
		if err := step(h, i, p, rng); err == nil {
			continue
		}
		_ = p.cmd.Wait() // it was killed
		if err := p.start(); err != nil {
			t.Errorf("node %d: %v\n%s", i, err, &p.stderr)
			return
		}
		_, _, _ = p.ask(append([]string{"recover"}, h.of(i)...)...) // it may not get through now; settle sees to it
	}
}

// step is one request of an engine. An error is the end of the node.
func step(h *history, i int, p *process, rng *rand.Rand) error {
	if keys := h.of(i); len(keys) > 50 || len(keys) > 0 && rng.IntN(2) == 0 {
		key := keys[rng.IntN(len(keys))]
		h.ending(key)
		_, _, err := p.ask("release", key)
		return err
	}
	key, ok, err := p.ask("claim")
	if err == nil && ok {
		h.claimed.Add(1)
		h.gave(i, key)
	} else if err == nil {
		h.refused.Add(1)
	}
	return err
}

// trouble makes some until calm is closed, and puts it right then.
func trouble(c *etcdtest.Cluster, rng *rand.Rand, calm <-chan struct{}) {
	for {
		m := c.Members[rng.IntN(len(c.Members))]
		begin, end := m.Freeze, m.Thaw
		switch rng.IntN(4) {
		case 0:
			begin, end = m.Kill, m.Start
		case 1:
			begin, end = m.Cut, m.Heal
		case 2:
			begin, end = m.Mute, m.Heal
		}
		begin()
		over := pass(calm, time.Duration(rng.IntN(1500))*time.Millisecond)
		end()
		if over || pass(calm, time.Duration(rng.IntN(1500))*time.Millisecond) {
			return
		}
	}
}

// pass lets time pass; true when calm was closed meanwhile.
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

// settle lets a node recover until it has nothing left to deliver.
func settle(t *testing.T, h *history, i int, p *process) {
	t.Helper()
	bound := time.Now().Add(time.Minute)
	for time.Now().Before(bound) {
		queued, ok, err := p.ask(append([]string{"recover"}, h.of(i)...)...)
		switch {
		case err != nil: // it was killed with its last request
			_ = p.cmd.Wait()
			if err := p.start(); err != nil {
				t.Fatal(err)
			}
		case ok && queued == "0":
			return
		}
	}
	t.Errorf("node %d does not come to rest", i)
}

// compare compares what etcd says is held with what the engines know.
func compare(t *testing.T, c *etcdtest.Cluster, h *history, nodes []*process) {
	t.Helper()
	s, err := store.OpenEtcd(store.EtcdConfig{Endpoints: c.Endpoints(), Prefix: "/unique"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want, got := map[string]string{}, map[string]string{}
	for i, p := range nodes {
		for _, key := range h.of(i) {
			want[key] = p.id
		}
	}
	err = s.Range(context.Background(), "lease/", func(kv store.KV) error {
		got[kv.Key], _, _ = strings.Cut(string(kv.Value), "/")
		return nil
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v: held (-known +held):\n%s", err, diff)
	}
}
