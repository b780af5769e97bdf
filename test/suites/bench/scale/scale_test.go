package scale

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/test/harness/etcdtest"
	"github.com/mellanox/passthrough/test/suites/bench/figures"
)

// Flags, after -args.
var (
	flagNodes   = flag.Int("nodes", 100, "nodes that join a pool at once")
	flagPools   = flag.String("pools", "18,15,12", "prefix lengths of the pools: 16 thousand, 131 thousand and a million addresses")
	flagReads   = flag.Int("reads", 3_000_000, "how many leases all nodes of a pool together may read when they join; fewer nodes join a large pool")
	flagStorm   = flag.Int("storm", 1000, "allocations of all nodes at once")
	flagCalls   = flag.Int("calls", 100, "allocations in turn")
	flagIdle    = flag.Duration("idle", time.Minute, "how long the nodes are watched while they are idle")
	flagFigures = flag.String("figures", "", "file for the raw figures")
	flagOthers  = flag.Duration("others", 20*time.Second, "how long another allocator may take for one figure; 0: without it")
)

// run is the measurement of one pool.
type run struct {
	*figures.Set
	etcd   *etcdtest.Cluster
	client *clientv3.Client
	subnet netip.Prefix
	prefix string // of the keys in etcd
	pool   *filled
	nodes  []*node
}

// TestScale measures each pool and prints the table.
func TestScale(t *testing.T) {
	etcd := etcdtest.StartDirect(t, 3, "--quota-backend-bytes", strconv.Itoa(8<<30))
	f := &figures.Set{T: t}
	client := etcd.Client(t)
	for text := range strings.SplitSeq(*flagPools, ",") {
		bits, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		f.Column = "/" + text
		r := &run{Set: f, etcd: etcd, client: client, prefix: "/pool" + text, subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), bits)}
		r.measure()
		f.Column = "/" + text
	}
	fmt.Fprint(os.Stdout, "\n", f.Table())
	if *flagFigures != "" {
		if err := f.Save(*flagFigures); err != nil {
			t.Error(err)
		}
	}
}

// measure measures one pool at 50, 90 and 99 percent.
func (r *run) measure() {
	first := r.newNode(0)
	if err := first.join(r.subnet); err != nil {
		r.T.Fatal(err)
	}
	r.pool = newFilled(r.subnet, first.pool)
	first.end()
	r.Value("addresses", "%.0f", float64(len(r.pool.order)))

	began := time.Now()
	r.pool.to(r, 50)
	r.T.Logf("filled to 50 %% in %v", time.Since(began).Round(time.Millisecond))
	alone := r.newNode(1)
	ok := r.joinAlone(alone)
	if ok {
		r.inTurn(alone, "50 % full, one node")
	}
	alone.end()
	if !ok {
		return
	}

	r.pool.to(r, 90)
	r.joinAtOnce(min(*flagNodes, max(*flagReads/r.pool.done, 3)))
	if len(r.nodes) > 0 {
		r.inTurn(r.nodes[0], "90 % full, all nodes")
		r.storm()
		r.restart(r.nodes[0])
		r.idle()
		r.pool.to(r, 99)
		r.inTurn(r.nodes[0], "99 % full, all nodes")
		r.taken(r.nodes[0])
		for _, n := range r.nodes[1:] { // etcd tells each node of each write, on the same processors
			n.end()
		}
		r.nodes = r.nodes[:1]
		r.inTurn(r.nodes[0], "99 % full, one node")
	}
	for _, n := range r.nodes {
		n.end()
	}
	if *flagOthers > 0 {
		r.whereabouts()
	}
}

// joinAlone measures one node that joins, and when it has read the leases. It returns false if the node cannot join.
func (r *run) joinAlone(n *node) bool {
	began := time.Now()
	err := n.join(r.subnet)
	took := time.Since(began)
	if err != nil {
		r.T.Logf("join: %v", err)
		r.Add(figures.Figure{Name: "a node joins, alone", Text: "fails after " + figures.Short(took)})
		return false
	}
	r.Times("a node joins, alone", []time.Duration{took}, 0)
	if at, ok := n.await(time.Minute); ok {
		r.Times("... and has read the leases", []time.Duration{at.Sub(began)}, 0)
	}
	n.bind(r.subnet)
	return true
}

// joinAtOnce measures many nodes that join at once, the time until they have read the leases, and their memory.
func (r *run) joinAtOnce(count int) {
	before := heap()
	var all []*node
	for i := range count {
		all = append(all, r.newNode(10+i))
	}
	r.Value("nodes", "%.0f", float64(count))
	began := time.Now()
	var joined, ready []time.Duration
	failed := 0
	var mu sync.Mutex
	r.each(all, func(n *node) {
		err := n.join(r.subnet)
		took := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			joined = append(joined, took)
		} else {
			failed++
		}
	})
	r.Times("all nodes join at once", joined, failed)
	for _, n := range all {
		if r.joinLate(n, began) != nil {
			n.end()
			continue
		}
		r.nodes = append(r.nodes, n)
		if at, ok := n.await(time.Until(began.Add(2 * time.Minute))); ok {
			ready = append(ready, at.Sub(began))
		}
	}
	r.Times("... and have read the leases", ready, count-len(ready))
	r.Value("heap per node, MB", "%.1f", float64(heap()-before)/float64(count)/(1<<20))
	r.each(r.nodes, func(n *node) { n.bind(r.subnet) })
}

// errLate: there is no time for another attempt.
var errLate = errors.New("too late")

// joinLate has a node join that could not with the others, so that the figures after that are of as many nodes as possible.
func (r *run) joinLate(n *node, began time.Time) error {
	for n.pool == "" {
		if time.Since(began) > time.Minute {
			return errLate
		}
		if err := n.join(r.subnet); err != nil {
			r.T.Logf("join: %v", err)
			<-time.After(500 * time.Millisecond) // its circuit breaker is open: it fails at once
		}
	}
	return nil
}

// each calls do for all nodes at once.
func (r *run) each(nodes []*node, do func(*node)) {
	var working sync.WaitGroup
	for _, n := range nodes {
		working.Go(func() { do(n) })
	}
	working.Wait()
}

// inTurn measures allocations one after the other, in turn with bare transactions, and what is read for them. The addresses are released.
func (r *run) inTurn(n *node, when string) {
	if _, err := n.request(netip.Addr{}); err != nil { // the first call may have to wait for the leases
		r.T.Logf("first request: %v", err)
	}
	shape := n.shared.shape.Load()
	if shape == nil {
		return
	}
	b := r.newBare(*shape)
	var took, bare, withToken []time.Duration
	var given []netip.Addr
	failed := 0
	read, writes := n.shared.read.Load(), n.shared.writes.Load()
	for range min(*flagCalls, (len(r.pool.order)-r.pool.done)/2) {
		began := time.Now()
		a, err := n.request(netip.Addr{})
		if err == nil {
			took, given = append(took, time.Since(began)), append(given, a)
		} else {
			failed++
			r.T.Logf("request: %v", err)
		}
		bare, withToken = append(bare, b.do(r, false)), append(withToken, b.do(r, true))
		if failed > 5 {
			break
		}
	}
	at := ", " + when
	r.Times("allocation"+at, took, failed)
	r.Times("bare transaction"+at, bare, 0)
	r.Times("bare transaction with a token"+at, withToken, 0)
	if len(took) > 0 {
		r.Value("ratio of the medians"+at, "%.2f", figures.Quantile(took, 0.5).Seconds()/figures.Quantile(bare, 0.5).Seconds())
		r.Value("... with a token"+at, "%.2f", figures.Quantile(took, 0.5).Seconds()/figures.Quantile(withToken, 0.5).Seconds())
		r.Value("records read per allocation"+at, "%.2f", float64(n.shared.read.Load()-read)/float64(len(took)))
		r.Value("writes per allocation"+at, "%.2f", float64(n.shared.writes.Load()-writes)/float64(len(took)))
	}
	for _, a := range given {
		if err := n.release(a); err != nil {
			r.T.Errorf("release: %v", err)
		}
	}
}

// storm measures allocations of all nodes at once.
func (r *run) storm() {
	count := min(*flagStorm, len(r.pool.order)-r.pool.done-len(r.nodes))
	each := max(count/len(r.nodes), 1)
	type result struct {
		took []time.Duration
		had  []netip.Addr
		lost int
	}
	results := make([]result, len(r.nodes)*each)
	reads := r.sum(func(n *node) int64 { return n.shared.read.Load() })
	writes := r.sum(func(n *node) int64 { return n.shared.writes.Load() })
	began := time.Now()
	var working sync.WaitGroup
	for i := range results {
		working.Go(func() {
			a, err := r.nodes[i%len(r.nodes)].request(netip.Addr{})
			if err != nil {
				results[i].lost = 1
				return
			}
			results[i].took, results[i].had = []time.Duration{time.Since(began)}, []netip.Addr{a}
		})
	}
	working.Wait()
	total := time.Since(began)
	var all result
	seen := map[netip.Addr]bool{}
	for _, one := range results {
		all.took, all.had, all.lost = append(all.took, one.took...), append(all.had, one.had...), all.lost+one.lost
		for _, a := range one.had {
			if seen[a] {
				r.T.Errorf("%s was given twice", a)
			}
			seen[a] = true
		}
	}
	name := fmt.Sprintf("storm of %d allocations, 90 %% full", *flagStorm)
	r.Times(name, all.took, all.lost)
	r.Value("... allocations per second", "%.0f", float64(len(all.had))/total.Seconds())
	got := float64(max(len(all.had), 1))
	r.Value("... records read per allocation", "%.2f", float64(r.sum(func(n *node) int64 { return n.shared.read.Load() })-reads)/got)
	r.Value("... writes per allocation", "%.2f", float64(r.sum(func(n *node) int64 { return n.shared.writes.Load() })-writes)/got)
	for i, one := range results {
		for _, a := range one.had {
			working.Go(func() {
				if err := r.nodes[i%len(r.nodes)].release(a); err != nil {
					r.T.Errorf("release: %v", err)
				}
			})
		}
	}
	working.Wait()
}

// sum adds up a count of all nodes.
func (r *run) sum(count func(*node) int64) (all int64) {
	for _, n := range r.nodes {
		all += count(n)
	}
	return all
}

// restart measures how soon a restarted node gives an address, and has read the leases.
func (r *run) restart(n *node) {
	n.restart()
	began := time.Now()
	a, err := n.request(netip.Addr{})
	took := []time.Duration{time.Since(began)}
	if err != nil {
		r.T.Logf("restart: %v", err)
		r.Times("a node restarts: first address after", nil, 1)
		return
	}
	r.Times("a node restarts: first address after", took, 0)
	if at, ok := n.await(time.Minute); ok {
		r.Times("... has read the leases again", []time.Duration{at.Sub(began)}, 0)
	}
	if err := n.release(a); err != nil {
		r.T.Errorf("release: %v", err)
	}
}

// idle counts what is read while no container starts or ends.
func (r *run) idle() {
	if *flagIdle == 0 {
		return
	}
	reads := r.sum(func(n *node) int64 { return n.shared.read.Load() })
	<-time.After(*flagIdle)
	reads = r.sum(func(n *node) int64 { return n.shared.read.Load() }) - reads
	r.Value("records read per idle node and minute", "%.0f", float64(reads)/float64(len(r.nodes))/flagIdle.Minutes())
}

// taken measures requests for addresses that are in use.
func (r *run) taken(n *node) {
	var took []time.Duration
	read := n.shared.read.Load()
	const calls = 20
	for i := range calls {
		began := time.Now()
		if a, err := n.request(addr(r.pool.order[i])); err == nil {
			r.T.Errorf("%s was given, and is in use", a)
		}
		took = append(took, time.Since(began))
	}
	r.Times("an address in use is refused", took, 0)
	r.Value("... records read per refusal", "%.2f", float64(n.shared.read.Load()-read)/calls)
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
