package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// nodeWithGC starts a node whose garbage collection runs, with its log.
func nodeWithGC(t *testing.T, shared store.Store, net *networkDriver) (*clusterNode, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	n := &clusterNode{T: t, own: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal"), shared: shared, uses: net.answer,
		log: zap.New(core)}
	n.start()
	t.Cleanup(func() { n.end() })
	return n, logs
}

// bind tells a node's driver that a network was created with a pool of this subnet and no gateway.
func (n *clusterNode) bind(network, subnet string) {
	n.Helper()
	n.d.BindPool(n.Context(), network, "passthrough-local", subnet, "", nil, false)
}

// wantLogged looks for log lines that contain a text; want is their number.
func wantLogged(t *testing.T, logs *observer.ObservedLogs, text string, want int) {
	t.Helper()
	found := 0
	for _, e := range logs.All() {
		if strings.Contains(e.Message, text) {
			found++
		}
	}
	if found != want {
		t.Errorf("%d log lines with %q, want %d: %v", found, text, want, logs.All())
	}
}

// TestLostLedgerFreesNothing: a node that lost its own ledger, and with it the network driver's records, uses a pool that its engine still
// has. What its containers have stays, and so does the pool; a line in the log says it.
func TestLostLedgerFreesNothing(t *testing.T) {
	for _, options := range [][]string{nil, {"pool=fabric"}} {
		clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
			var before, after networkDriver
			a, _ := nodeWithGC(t, under, &before)
			p := a.pool("10.0.0.0/24", options...)
			a.bind("net", "10.0.0.0/24")
			live := []string{a.get(p), a.get(p), a.get(p)}
			before.says(nil, use("net", live...))
			wait(time.Hour)
			a.end()
			b, logs := nodeWithGC(t, under, &after) // a plugin that was removed and installed
			wait(time.Hour)
			b.release(p, b.get(p)) // the engine starts a container, whose endpoint fails: its network is unknown
			b.restart()
			b.get(p)
			wait(24 * time.Hour)
			for _, addr := range live {
				if !slices.Contains(held(t, under), addr) {
					t.Errorf("%s of a running container was released", addr)
				}
			}
			wantLogged(t, logs, "this node's own ledger was lost", 1)
		})
	}
}

// TestRemovedNetworkIsEvidence: a handle is released if this node's network driver had its network and does not have it any more, also after
// a restart.
func TestRemovedNetworkIsEvidence(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		var net networkDriver
		n, _ := nodeWithGC(t, under, &net)
		n.get(n.pool("10.0.0.0/24", "pool=fabric"))
		unbound := n.get(n.pool("10.1.0.0/24"))
		n.pool("10.0.0.0/24", "pool=fabric")
		n.bind("net", "10.0.0.0/24")
		p := n.pool("10.2.0.0/24")
		n.bind("gone", "10.2.0.0/24")
		n.get(p)
		net.says(nil, use("net"))
		n.restart()
		wait(time.Hour)
		if got := held(t, under); len(got) != 2 || !slices.Contains(got, unbound) {
			t.Errorf("held are %v, want those of the two pools whose network is not known", got)
		}
		if got := pools(t, under); slices.Contains(got, p) || len(got) != 2 {
			t.Errorf("pools %v, want all but %s", got, p)
		}
	})
}

// TestBoundByOlderVersion: a handle of this node whose network an older version has recorded in the shared store is bound if the network
// driver has that network, and its lost leases are released. Otherwise it is not judged.
func TestBoundByOlderVersion(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		var net networkDriver
		net.says(nil, use("has"))
		n, logs := nodeWithGC(t, under, &net)
		n.end()
		var lost []string
		for _, c := range []struct{ network, subnet, pool string }{{"has", "10.0.0.0/24", "lan"}, {"not", "10.1.0.0/24", "fabric"},
			{"has", "10.2.0.0/24", ""}, {"not", "10.3.0.0/24", ""}} {
			n.start()
			var options []string
			prefix := "ipam/pool/"
			if c.pool != "" {
				options, prefix = []string{"pool=" + c.pool}, "ipam/share/"
			}
			before := recordsOf(t, under)
			handle := n.pool(c.subnet, options...)
			lost = append(lost, n.get(handle))
			n.end()
			wait(time.Second)
			for key, value := range recordsOf(t, under) {
				if before[key] == "" && strings.HasPrefix(key, prefix) {
					put(t, under, key, strings.TrimSuffix(value, "}")+`,"network":"`+c.network+`"}`)
				}
			}
			put(t, n.own, "node/mine/"+handle, `{"v":1,"subnet":"`+c.subnet+`"}`)
		}
		n.restart()
		wait(time.Hour)
		wantHeld(t, under, "those of the networks that are not there stay", lost[1], lost[3])
		wantLogged(t, logs, "its network was recorded by an older version", 2)
		if got := pools(t, under); len(got) != 4 {
			t.Errorf("pools %v, want all", got)
		}
	})
}

// put writes a record.
func put(t *testing.T, s store.Store, key, value string) {
	t.Helper()
	if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put(key, []byte(value))}); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkCallsAskNoSharedStore: all that the network driver calls is answered at once while the shared store does not answer, and what was
// bound meanwhile is bound. The gateway that the network does not use is released later.
func TestNetworkCallsAskNoSharedStore(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		shared := &hangingStore{Memory: under}
		var net networkDriver
		n, _ := nodeWithGC(t, shared, &net)
		p := n.pool("10.0.0.0/29", "pool=lan")
		gw := n.gateway(p)
		lost := n.pool("10.1.0.0/24")
		shared.hangs.Store(true)
		asked := time.Now()
		if !n.d.InventedGateway(t.Context(), "10.0.0.0/29", gw) {
			t.Error("the gateway counts as the user's")
		}
		n.d.BindPool(t.Context(), "net", "passthrough-local", "10.0.0.0/29", gw, nil, true)
		n.bind("other", "10.1.0.0/24")
		n.d.AddressesForgotten("net", []string{"10.0.0.5/29"})
		if took := time.Since(asked); took != 0 {
			t.Errorf("took %v", took)
		}
		n.end()
		shared.hangs.Store(false)
		n.restart()
		wait(time.Minute)
		wantHeld(t, under, "the gateway is released")
		n.get(lost)
		net.says(nil, use("net"), use("other"))
		wait(time.Hour)
		wantHeld(t, under, "the lost lease is released")
	})
}

// gateway requests any gateway, as engines before 28 do, and returns the answer.
func (n *clusterNode) gateway(pool string) string {
	n.Helper()
	r, err := n.d.RequestAddress(n.Context(), addressRequest(pool, "", asGateway))
	if err != nil {
		n.Fatal(err)
	}
	return r.Address
}

// TestInventedGatewayAfterRestart: how a gateway was requested outlives the process, and the shared store is not asked.
func TestInventedGatewayAfterRestart(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		shared := &hangingStore{Memory: under}
		n := newNode(t, shared)
		for _, options := range [][]string{nil, {"pool=lan"}} {
			invented := n.gateway(n.pool("10.0.0.0/24", options...))
			n.restart()
			shared.hangs.Store(true)
			if !n.d.InventedGateway(t.Context(), "10.0.0.0/24", invented) || n.d.InventedGateway(t.Context(), "10.0.0.0/24", "10.0.0.2") {
				t.Errorf("options %v: gateway %s does not count as invented, or another one does", options, invented)
			}
			shared.hangs.Store(false)
			wait(time.Minute)
		}
	})
}

// TestIdleRoundReadsNothing: rounds of garbage collection without suspects read nothing of a shared store.
func TestIdleRoundReadsNothing(t *testing.T) {
	counted(t, func(t *testing.T, c *countingStore) {
		var net networkDriver
		n, _ := nodeWithGC(t, c, &net)
		p := n.pool("10.0.0.0/24", "pool=lan")
		n.bind("net", "10.0.0.0/24")
		net.says(nil, use("net", n.get(p), n.get(p)))
		wait(2 * time.Minute)
		c.since()
		wait(time.Hour)
		if read, txns := c.since(); read > 0 || txns > 60 { // once a minute the node writes that it runs
			t.Errorf("an idle hour: %d records read, %d transactions", read, txns)
		}
	})
}

// TestBindPoolByWhatTheEngineSays: of several pools with one subnet the network has the one with its gateway and auxiliary addresses. If they
// do not tell, or a pool of another process may be meant, none is bound, however old they are, and a line in the log says it.
func TestBindPoolByWhatTheEngineSays(t *testing.T) {
	type asked struct {
		gateway string // "": none; "any": one that the engine did not name
		aux     []string
	}
	for name, c := range map[string]struct {
		pools   []asked
		gateway string
		aux     []string
		want    int // index of the pool that is bound; -1: none
	}{
		"one":                   {[]asked{{}}, "", nil, 0},
		"by gateway":            {[]asked{{gateway: "10.0.0.1"}, {gateway: "10.0.0.254"}}, "10.0.0.254/24", nil, 1},
		"one without gateway":   {[]asked{{gateway: "any"}, {}}, "", nil, 1},
		"by aux":                {[]asked{{aux: []string{"10.0.0.9"}}, {}}, "", []string{"10.0.0.9/24"}, 0},
		"another one's aux":     {[]asked{{aux: []string{"10.0.0.9"}}}, "", nil, -1},
		"more aux than it said": {[]asked{{}}, "", []string{"10.0.0.9/24"}, -1},
		"another gateway":       {[]asked{{gateway: "any"}}, "10.0.0.254/24", nil, -1},
		"two":                   {[]asked{{gateway: "any"}, {gateway: "10.0.0.1"}}, "10.0.0.1/24", nil, -1},
		"none":                  {nil, "", nil, -1},
	} {
		t.Run(name, func(t *testing.T) {
			clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
				var net networkDriver
				n, logs := nodeWithGC(t, under, &net)
				net.says(nil, use("net"))
				var made, leased []string
				for _, a := range c.pools {
					p := n.pool("10.0.0.0/24")
					made = append(made, p)
					if a.gateway == "any" {
						n.gateway(p)
					} else if a.gateway != "" {
						n.exact(p, a.gateway, asGateway)
					}
					for _, aux := range a.aux {
						n.exact(p, aux, nil)
					}
					wait(31 * time.Second) // a slow engine
				}
				n.d.BindPool(t.Context(), "net", "passthrough-local", "10.0.0.0/24", c.gateway, c.aux, false)
				for range 2 {
					n.d.BindPool(t.Context(), "net", "passthrough-global", "10.0.0.0/24", c.gateway, c.aux, false) // not one of that space
				}
				for _, p := range made {
					leased = append(leased, n.get(p))
				}
				n.bind("later", "10.0.0.0/24") // the pools have containers: they are those of other networks
				wait(time.Hour)
				for i, a := range leased {
					released := !slices.Contains(leases(t, under)[made[i]], a)
					if released != (i == c.want) {
						t.Errorf("pool %d: the lost lease was released: %v", i, released)
					}
				}
				want := 1
				if c.want < 0 {
					want = 4
				}
				wantLogged(t, logs, "it is not known which pool the network has", want)
			})
		})
	}
}

// exact requests an address, which must be given.
func (n *clusterNode) exact(pool, addr string, options map[string]string) {
	n.Helper()
	if _, err := n.d.RequestAddress(n.Context(), addressRequest(pool, addr, options)); err != nil {
		n.Fatal(err)
	}
}

// TestBindPoolNotOfFormerProcess: a pool that a former process was asked for is not bound, and no other pool is in its place.
func TestBindPoolNotOfFormerProcess(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		var net networkDriver
		n, logs := nodeWithGC(t, under, &net)
		p := n.pool("10.0.0.0/24")
		n.restart()
		n.bind("net", "10.0.0.0/24")
		a := n.get(p)
		net.says(nil, use("net"))
		wait(time.Hour)
		wantHeld(t, under, "not bound", a)
		wantLogged(t, logs, "it is not known which pool the network has", 1)
	})
}

// TestBindPoolAcrossARestart: the engine has requested a pool for a network, the process is started again, and another network with a pool of
// that subnet is created. The second pool must not be taken for the first network's, which is told of first. The former process's pools are
// not in the way if the ledger shows that they are other networks'.
func TestBindPoolAcrossARestart(t *testing.T) {
	for name, c := range map[string]struct {
		former func(n *clusterNode, p string) // what happens to the pool before the restart
		later  func(n *clusterNode, p string) // ... and after it
		bound  bool                           // the second pool, to the network that is told of
	}{
		"nothing":             {},
		"an aux address":      {former: func(n *clusterNode, p string) { n.exact(p, "10.0.0.9", nil) }, bound: true},
		"another gateway":     {former: func(n *clusterNode, p string) { n.exact(p, "10.0.0.1", asGateway) }, bound: true},
		"a container":         {former: func(n *clusterNode, p string) { n.get(p) }, bound: true},
		"a container, later":  {later: func(n *clusterNode, p string) { n.release(p, n.get(p)) }, bound: true},
		"it is bound":         {former: func(n *clusterNode, _ string) { n.bind("former", "10.0.0.0/24") }, bound: true},
		"it is released":      {later: func(n *clusterNode, p string) { n.releasePool(p) }, bound: true},
		"a container, before": {former: func(n *clusterNode, p string) { n.release(p, n.get(p)) }},
	} {
		for _, options := range [][]string{nil, {"pool=lan"}} {
			t.Run(fmt.Sprint(name, options), func(t *testing.T) {
				clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
					var net networkDriver
					n, logs := nodeWithGC(t, under, &net)
					net.says(nil, use("former"), use("net"))
					first := n.pool("10.0.0.0/24", options...)
					if c.former != nil {
						c.former(n, first)
					}
					n.restart()
					second := n.pool("10.0.0.0/24", options...)
					if c.later != nil {
						c.later(n, first)
					}
					n.bind("net", "10.0.0.0/24")
					// Not an address that the first pool, which has this subnet, too, has given.
					a, others := "", held(t, under)
					for a == "" || slices.Contains(others, a) {
						a = n.get(second)
					}
					wait(time.Hour)
					if released := !slices.Contains(held(t, under), a); released != c.bound {
						t.Errorf("a lost lease of the second pool was released: %v", released)
					}
					logged := 1
					if c.bound {
						logged = 0
					}
					wantLogged(t, logs, "it is not known which pool the network has", logged)
				})
			})
		}
	}
}

// TestBindPoolAcrossARestartUnread: what is not known of a former process's pool may be; the shared store is not asked.
func TestBindPoolAcrossARestartUnread(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		shared := &hangingStore{Memory: under}
		var net networkDriver
		n, logs := nodeWithGC(t, shared, &net)
		first := n.pool("10.0.0.0/24", "pool=lan")
		n.get(first)
		n.end()
		shared.hangs.Store(true)
		n.restart()
		asked := time.Now()
		n.bind("net", "10.0.0.0/24")
		if took := time.Since(asked); took > time.Second {
			t.Errorf("took %v", took)
		}
		wantLogged(t, logs, "it is not known which pool the network has", 1)
		shared.hangs.Store(false)
		wait(time.Minute)
		n.pool("10.0.0.0/24", "pool=lan")
		n.bind("other", "10.0.0.0/24")
		wantLogged(t, logs, "it is not known which pool the network has", 1)
	})
}

// TestBindPoolAcrossARestartOwn is TestBindPoolAcrossARestart in a store of this node alone.
func TestBindPoolAcrossARestartOwn(t *testing.T) {
	for _, container := range []bool{false, true} {
		withFixture(t, func(b *fixture) {
			first := b.pool("10.0.0.0/24", "")
			if container {
				b.chosen(first)
			}
			b.restart()
			var net networkDriver
			defer b.startGC(&net)()
			net.says(nil, use("net"))
			second := b.pool("10.0.0.0/24", "")
			b.d.BindPool(b.Context(), "net", "passthrough-local", "10.0.0.0/24", "", nil, false)
			b.chosen(second)
			wait(time.Hour)
			if left := leases(b.T, b.store)[second]; (len(left) == 0) != container {
				b.Errorf("the first pool has a container: %v; leases of the second one after an hour: %v", container, left)
			}
		})
	}
}

// overflowPool creates a pool of the group office.
func (b *fixture) overflowPool(subnet string) string { return b.poolWith(subnet, "overflow=office") }

// TestOverflowOfTwoNetworks: a pool does not give addresses to another network, or to one that is not known; a line in the log says that two
// networks have one name. Within one network it does, and an address that it gave stays as long as the endpoint is there.
func TestOverflowOfTwoNetworks(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		one := b.overflowPool("10.0.0.0/30")
		b.d.BindPool(b.Context(), "n1", "passthrough-local", "10.0.0.0/30", "", nil, false)
		two := b.overflowPool("10.0.1.0/24")
		b.d.BindPool(b.Context(), "n2", "passthrough-local", "10.0.1.0/24", "", nil, false)
		b.overflowPool("10.0.2.0/24") // of a macvlan network
		live := []string{b.chosen(one), b.chosen(one)}
		if got, err := b.request(one, "", nil); err == nil {
			t.Errorf("the network n1 was given %s of another network", got)
		}
		b.overflowPool("10.0.3.0/24")
		b.d.BindPool(b.Context(), "n1", "passthrough-local", "10.0.3.0/24", "", nil, false)
		lent, lost, of2 := b.chosen(one), b.chosen(one), b.chosen(two)
		net.says(nil, use("n1", append(live, lent)...), use("n2", of2))
		wait(time.Hour)
		wantHeld(b.T, b.store, "all but the one that no endpoint has: "+lost, append(live, lent, of2)...)
	})
}

// TestOverflowLentByOlderVersion: an address that an older version gave to another network stays while that network's endpoint has it, and if
// it is not known which network has it.
func TestOverflowLentByOlderVersion(t *testing.T) {
	withFixture(t, func(b *fixture) {
		one := b.overflowPool("10.0.0.0/30")
		b.d.BindPool(b.Context(), "n1", "passthrough-local", "10.0.0.0/30", "", nil, false)
		two := b.overflowPool("10.0.1.0/24")
		b.d.BindPool(b.Context(), "n2", "passthrough-local", "10.0.1.0/24", "", nil, false)
		macvlan := b.overflowPool("10.0.2.0/30")
		for addr, via := range map[string]string{"10.0.1.2": one, "10.0.1.3": macvlan, "10.0.1.4": one} {
			put(b.T, b.store, "ipam/lease/"+strings.TrimPrefix(two, "v1:")+"/"+addr,
				`{"v":1,"kind":"chosen","since":"2000-01-01T00:00:00Z","token":"`+addr+`","via":"`+strings.TrimPrefix(via, "v1:")+`"}`)
		}
		var net networkDriver
		defer b.startGC(&net)()
		net.says(nil, use("n1", "10.0.1.2"), use("n2"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "all but the one that no endpoint has", "10.0.1.2", "10.0.1.3")
	})
}

// TestOverflowOfTwoNetworksIsLogged: a line in the log says that two networks have one name.
func TestOverflowOfTwoNetworksIsLogged(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		var net networkDriver
		n, logs := nodeWithGC(t, under, &net)
		for subnet, network := range map[string]string{"10.0.0.0/24": "n1", "10.0.1.0/24": "n1", "10.0.2.0/24": "n2"} {
			n.pool(subnet, "overflow=office")
			n.bind(network, subnet)
		}
		if len(logs.All()) == 0 {
			t.Error("nothing is logged")
		}
		wantLogged(t, logs, "two networks have pools with the same name for option overflow", len(logs.All()))
	})
}

// TestCopyOfADisk: a machine that was started from a copy of a node's disk frees nothing, gets no addresses, neither prefetched ones, and changes
// nothing in the shared store. Its releases wait. After renew it is a node of its own, and they are dropped.
func TestCopyOfADisk(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		var netA, netB networkDriver
		a, _ := nodeWithGC(t, under, &netA)
		a.end()
		a.machine = cluster.Machine{ID: "a", Boot: "1"}
		a.restart()
		p := a.pool("10.0.0.0/24", "pool=fabric", "prefetch=2")
		a.bind("net", "10.0.0.0/24")
		wait(time.Minute)
		live := a.get(p)
		netA.says(nil, use("net", live))
		netB.says(nil, use("net"))
		wait(time.Minute)

		b := &clusterNode{T: t, own: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal"), shared: far, uses: netB.answer,
			machine: cluster.Machine{ID: "b", Boot: "2"}}
		for key, value := range recordsOf(t, a.own) {
			put(t, b.own, key, value)
		}
		before := recordsOf(t, under)
		b.start()
		defer func() { b.end() }()
		wait(time.Hour)
		refuse := func(when string, kind error) {
			t.Helper()
			if got, err := b.ask(p); !errors.Is(err, kind) {
				t.Errorf("%s: the copy is given %s, %v", when, got, err)
			}
		}
		refuse("etcd answers", cluster.ErrElsewhere)
		far.Away(true)
		b.restart()
		refuse("etcd is away", cluster.ErrElsewhere)
		far.Away(false)
		b.release(p, live)
		b.releasePool(p)
		wait(time.Hour)
		wantChanges(t, "the shared store", before, recordsOf(t, under), "cluster/seen/"+nodeID(t, a.own)) // the original runs
		if got, err := a.ask(p); err != nil {
			t.Errorf("the original: %s, %v", got, err)
		}

		b.end()
		wait(time.Second)
		if err := ipamdrv.RenewNode(t.Context(), b.own, journal.New(b.journal)); err != nil {
			t.Fatal(err)
		}
		b.restart()
		b.get(b.pool("10.0.0.0/24", "pool=fabric", "prefetch=2"))
		wait(time.Hour)
		if !slices.Contains(held(t, under), live) || a.identity() == b.identity() {
			t.Errorf("held are %v, with %s; nodes %s and %s", held(t, under), live, a.identity(), b.identity())
		}
	})
}

// fencedStore counts the transactions that were fenced.
type fencedStore struct {
	*store.Memory
	fenced int
}

func (s *fencedStore) Fence(context.Context, string) error {
	s.fenced++
	return nil
}

// TestCopyFencesNothing: a copy of a disk has the intents of the other machine, whose transactions may be in flight. It fences none of them; the
// node itself does.
func TestCopyFencesNothing(t *testing.T) {
	for machine, want := range map[string]int{"a": 1, "b": 0} {
		synctest.Test(t, func(t *testing.T) {
			shared := &fencedStore{Memory: store.NewMemory()}
			n := &clusterNode{T: t, own: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal"), shared: shared,
				machine: cluster.Machine{ID: "a", Boot: "1"}}
			n.start()
			p, _ := strings.CutPrefix(n.pool("10.0.0.0/24"), "v1:")
			n.end()
			shared.fenced = 0
			n.journal = filepath.Join(t.TempDir(), "of-the-node")
			j := journal.New(n.journal)
			err := j.Add("node/owed/"+p+"/0000000000000009", []byte(`{"v":1,"do":"release","addr":"10.0.0.9","token":"t","settle":"in-flight"}`))
			if err := errors.Join(err, j.Close()); err != nil {
				t.Fatal(err)
			}
			n.machine = cluster.Machine{ID: machine, Boot: machine}
			n.own = n.own.Reopen()
			n.start()
			wait(time.Minute)
			n.end()
			if shared.fenced != want {
				t.Errorf("on machine %s: fenced %d times, want %d", machine, shared.fenced, want)
			}
		})
	}
}

// TestPoolMissingForAWhile: the shared store lacks a pool, and has it again after an operator has restored it. The node has not dropped what it
// knows of it.
func TestPoolMissingForAWhile(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		n := newNode(t, far)
		p := n.pool("10.0.0.0/24", "prefetch=2")
		n.bind("net", "10.0.0.0/24")
		n.get(p) // no address is prefetched yet
		shared, own := recordsOf(t, under), recordsOf(t, n.own)
		for key := range shared {
			if strings.HasPrefix(key, "ipam/") {
				if _, err := under.Txn(t.Context(), nil, []store.Op{store.Del(key)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.restart()
		wait(time.Hour)
		if got, err := n.ask(p); !errors.Is(err, ipamdrv.ErrUnknownPool) {
			t.Errorf("without the pool: given %s, %v", got, err)
		}
		wantChanges(t, "the own ledger", own, recordsOf(t, n.own))
		for key, value := range shared {
			put(t, under, key, value)
		}
		n.get(p)
	})
}
