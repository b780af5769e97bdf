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
	cluster  *etcdtest.Cluster
	engines  *engines
	nodes    []*node
	current  string // the binary of this release
	old      string // that of the release before
	prefetch bool
	ops      int64     // how many, 0 for as many as there is time for
	end      time.Time // if ops is 0

	done, given, refused, killed, lost, copied atomic.Int64
	changed, givenByOld                        atomic.Int64 // node 0 to the other release, addresses that it has given with the one before
	owed                                       atomic.Int64 // ops in the outboxes of ledgers that were lost, and of machines that disappeared
}

// uniqueTime is how long TestUnique works if nothing else is said.
const uniqueTime = time.Minute

// TestUnique: five plugins, each with its own engine, request and release addresses of one pool in an etcd of three members. Meanwhile
// plugins and members are killed, members and above all the leader are stopped, and their links to clients and to each other lose all packets
// or only the answers; wall clocks are set, nodes lose their ledgers, and machines with copies of their disks appear. One of the nodes is of the
// release before at first, and is upgraded and goes back again and again, as in a rolling upgrade.
// The history of all grants and releases shows that no address is given twice, and in the end none is lost.
//
// OPS and SEED change the number and the choice of operations: make test-unique OPS=20000 SEED=7. The timing is not reproducible.
func TestUnique(t *testing.T) {
	ops, seed := fromEnv(t, "OPS", 0), fromEnv(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("OPS=%d SEED=%d", ops, seed)
	u := &uniqueness{T: t, current: buildWithClock(t), old: buildOld(t), cluster: etcdtest.Start(t, 3), engines: newEngines(), ops: int64(ops), prefetch: seed%2 == 0,
		end: time.Now().Add(uniqueTime)}
	for i := range 5 {
		options := `{"pool":"lan"`
		if u.prefetch {
			options += `,"prefetch":"3"`
		}
		if seed/2%2 == 0 {
			options += `,"quarantine":"1s"`
		}
		options += "}"
		n := newPlugin(t, u.cluster, u.current, i)
		if i == 0 {
			n.binary = u.old
			n.env = append(n.env, "HANDLER_TIMEOUT=10s") // the release before needs 5 s to find out that etcd is away
		}
		n.begin(options)
		u.nodes = append(u.nodes, n)
	}
	var working, troubling sync.WaitGroup
	calm := make(chan struct{})
	troubling.Go(func() { u.trouble(rand.New(rand.NewPCG(seed, 100)), calm) })
	troubling.Go(func() { u.setClocks(rand.New(rand.NewPCG(seed, 101)), calm) })
	for i, n := range u.nodes {
		working.Go(func() { u.work(n, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	began := time.Now()
	working.Wait()
	u.Logf("worked for %v", time.Since(began).Round(time.Second))
	close(calm)
	troubling.Wait()
	u.cluster.Await()
	u.judge()
}

// more counts an operation, and returns false if there were enough.
func (u *uniqueness) more() bool {
	done := u.done.Add(1)
	if u.ops == 0 {
		return time.Now().Before(u.end)
	}
	return done <= u.ops
}

// work is the calls of one engine.
func (u *uniqueness) work(n *node, rng *rand.Rand) {
	for u.more() {
		if rng.IntN(60) == 0 {
			u.killed.Add(1)
			n.killAfter(time.Duration(rng.IntN(20000)) * time.Microsecond)
		}
		if n.number == 0 && rng.IntN(60) == 0 {
			u.changeRelease(n)
		}
		switch fault := rng.IntN(500); {
		case n.binary == u.old: // its answers to these two are among what was wrong with it
		case fault == 0:
			u.lost.Add(1)
			u.owed.Add(int64(n.loseLedger()))
		case fault == 1:
			u.copyDisk(n)
		}
		u.step(n, rng.IntN(2) == 0, rng)
	}
	if n.binary == u.old { // the upgrade comes to its end
		u.changeRelease(n)
	}
	n.settle()
}

// changeRelease restarts a node as one of the other release.
func (u *uniqueness) changeRelease(n *node) {
	u.changed.Add(1)
	n.settle()
	n.stop()
	if n.binary == u.old {
		n.binary = u.current
	} else {
		n.binary = u.old
	}
	n.start()
}

// step requests or releases an address.
func (u *uniqueness) step(n *node, release bool, rng *rand.Rand) {
	has := u.engines.of(n.number)
	if len(has) > 18 || len(has) > 0 && release {
		u.engines.end(n, has[rng.IntN(len(has))])
		return
	}
	call := u.engines.log.Now()
	if addr, ok := n.ask(); ok {
		u.given.Add(1)
		if n.binary == u.old {
			u.givenByOld.Add(1)
		}
		u.engines.gave(n.number, addr, call)
	} else {
		u.refused.Add(1)
	}
}

// copyDisk has a machine with a copy of a node's disk start some containers while the node works, stop them and disappear.
func (u *uniqueness) copyDisk(n *node) {
	other := n.copyDisk(u.cluster, len(u.nodes)+int(u.copied.Add(1)))
	other.start()
	n.Cleanup(other.end)
	other.settle()
	for range 5 {
		call := u.engines.log.Now()
		if addr, ok := other.ask(); ok {
			u.engines.gave(other.number, addr, call)
		}
		u.step(n, false, rand.New(rand.NewPCG(1, 1)))
	}
	for _, addr := range u.engines.of(other.number) {
		u.engines.end(other, addr)
	}
	other.stop()
	u.owed.Add(int64(other.owedOrIntended()))
}

// setClocks sets wall clocks until calm is closed.
func (u *uniqueness) setClocks(rng *rand.Rand, calm <-chan struct{}) {
	for !pass(calm, time.Duration(rng.IntN(3000))*time.Millisecond) {
		u.nodes[rng.IntN(len(u.nodes))].setClock(rng.IntN(241) - 120)
	}
}

// trouble injects faults until calm is closed, and repairs the last one.
func (u *uniqueness) trouble(rng *rand.Rand, calm <-chan struct{}) {
	for {
		m := u.cluster.Members[rng.IntN(len(u.cluster.Members))]
		if leader := u.cluster.Leader(); leader != nil && rng.IntN(3) == 0 {
			m = leader
		}
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
	u.Logf("%d operations: %d addresses given, %d requests refused; %d plugins killed, %d ledgers lost, %d disks copied", u.done.Load(),
		u.given.Load(), u.refused.Load(), u.killed.Load(), u.lost.Load(), u.copied.Load())
	u.Logf("node 0 changed its release %d times, and gave %d addresses with the one before", u.changed.Load(), u.givenByOld.Load())
	if twice := u.engines.log.Check(); len(twice) > 0 {
		u.Errorf("given twice:\n%s", strings.Join(twice, "\n"))
	}
	// Most requests may be refused, at once: of a pool that is full or in quarantine, by a copied disk, or while etcd is away.
	if u.given.Load() < 100 {
		u.Errorf("only %d of %d operations gave an address", u.given.Load(), u.done.Load())
	}
	if u.givenByOld.Load() == 0 {
		u.Error("the release before gave no address")
	}
	for _, n := range u.nodes {
		n.calmDown() // a killed plugin may have an op in its outbox
	}
	u.compare(u.engines.all(), u.leases())
	for _, n := range u.nodes {
		n.leave()
	}
	if left := u.leases(); len(left) > 0 {
		u.Errorf("when all networks are gone etcd still has %q", left)
	}
}

// compare compares the addresses of the engines with those in etcd. A plugin that is killed between the removal of the intent and the
// answer leaves a lease without an answer, and one that loses its ledger, with the outbox in it, those that it had to release; garbage
// collection needs endpoints to find them, and there are none here. Such a lease is removed with its network, as the next check shows.
func (u *uniqueness) compare(known, held []string) {
	u.Helper()
	for _, addr := range known {
		if !slices.Contains(held, addr) {
			u.Errorf("an engine has %s, and etcd does not", addr)
		}
	}
	unanswered := slices.DeleteFunc(held, func(addr string) bool { return slices.Contains(known, addr) })
	u.Logf("%d leases without an answer, because plugins were killed; %d were to be released by ledgers that are lost", len(unanswered),
		u.owed.Load())
	if int64(len(unanswered)) > 1+u.killed.Load()/50+u.owed.Load() {
		u.Errorf("etcd has these leases, and no engine knows of them: %q", unanswered)
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
