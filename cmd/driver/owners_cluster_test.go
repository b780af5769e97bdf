//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// An ownersNode is a machine of a cluster whose pods and containers of Docker share a pool in an etcd, by a link of the node's own.
type ownersNode struct {
	*sharedMachine
	link etcdtest.Proxy
	dead *atomic.Bool // the process was killed
}

// ownersReserve is how many addresses each of a node's networks leases ahead.
const ownersReserve = 2

// newOwnersNode starts a node. Docker's network is there.
func newOwnersNode(t *testing.T, c *etcdtest.Cluster) *ownersNode {
	t.Helper()
	link, err := c.Members[0].Proxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	n := &ownersNode{sharedMachine: &sharedMachine{T: t, dir: t.TempDir(), kernel: hwtest.New(t), store: store.NewMemory()}, link: link}
	n.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
	n.start()
	t.Cleanup(func() { n.stop() })
	pool, err := n.ipam.RequestPool(n.ctx, &ipam.RequestPoolRequest{Pool: ownersSubnet, Options: ownersPool})
	n.must(err)
	n.docker = pool.PoolID
	_, err = n.ipam.RequestAddress(n.ctx, &ipam.RequestAddressRequest{PoolID: n.docker, Address: "10.1.0.62", Options: map[string]string{"RequestAddressType": netlabel.Gateway}})
	n.must(err)
	return n
}

const ownersSubnet = "10.1.0.0/26"

// ownersPool are the options of the pool.
var ownersPool = map[string]string{"pool": "lan", "prefetch": fmt.Sprint(ownersReserve)}

// start starts a process on the node's ledger.
func (n *ownersNode) start() {
	n.Helper()
	n.dead = new(atomic.Bool)
	own := deadStore{n.store, n.dead}
	cfg := config{store: "etcd://" + n.link.Endpoint() + "?prefix=/owners", stateDir: n.dir}
	ctx, cancel := context.WithCancel(context.Background())
	pools := openPools(ctx, cfg, own, cfg.newMonitor(), newCrashPoints())
	n.startOn(cfg, own, pools)
	stop := n.stop
	n.stop = func() { stop(); n.ipam.Close(); cancel(); _ = pools.Close() } // it may be away
}

// crash has the process end without another write, and starts the next one.
func (n *ownersNode) crash() {
	n.Helper()
	n.dead.Store(true)
	n.link.Cut()
	n.stop()
	n.link.Heal()
	n.start()
}

// owned is a pod of the network of all pods.
func (n *ownersNode) owned(id string) *sharedPod {
	n.Helper()
	p := n.pod(id, ownersModes["macvlan"]...)
	p.req.IPAM.Subnets[0].Subnet, p.req.IPAM.Subnets[0].Gateway = ownersSubnet, "10.1.0.62"
	p.req.IPAM.Options = ownersPool
	return p
}

// container requests an address for a container of Docker.
func (n *ownersNode) container() (string, error) {
	ctx, cancel := context.WithTimeout(n.ctx, 10*time.Second)
	defer cancel()
	a, err := n.ipam.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: n.docker})
	if err != nil {
		return "", err
	}
	return a.Address, nil
}

// awaitUpkeep waits for what is done in the background, every five seconds and once an etcd that was away is found again.
func awaitUpkeep(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if retry.Poll(t.Context(), 50*time.Millisecond, time.Minute, func() (bool, error) { return holds(), nil }) != nil {
		t.Fatalf("waited a minute for %s", what)
	}
}

// TestOwnersOfTwoNodes: pods and containers of Docker on two nodes share a pool in an etcd, and none has another's address. While the etcd is away
// a pod gets an address that its node has leased ahead, and then an error that says why; a pod that ends gives its address back when the etcd is
// there again. A node whose process is killed knows what its pods have.
func TestOwnersOfTwoNodes(t *testing.T) {
	c := etcdtest.Start(t, 1)
	shared, err := etcdstore.Open(etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/owners"})
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	leases := func() (of map[string][]netip.Addr) {
		of = map[string][]netip.Addr{}
		l, err := invariant.ReadStore(t.Context(), shared)
		if err != nil {
			t.Error(err)
			return of
		}
		for _, lease := range l.Leases {
			of[lease.Kind] = append(of[lease.Kind], lease.Address)
		}
		return of
	}
	leased := func(p *sharedPod) bool {
		return slices.Contains(leases()["chosen"], netip.MustParsePrefix(p.at.Addresses[0]).Addr())
	}
	nodes := []*ownersNode{newOwnersNode(t, c), newOwnersNode(t, c)}

	const each = 4
	type gift struct {
		addr string
		err  error
	}
	given := make(chan gift, 2*2*each)
	pods := [2][]*sharedPod{}
	for i, n := range nodes {
		for j := range each {
			p := n.owned(fmt.Sprintf("pod%d-%d", i, j))
			pods[i] = append(pods[i], p)
			go func() {
				if err := p.add(); err != nil {
					given <- gift{err: err}
					return
				}
				given <- gift{addr: p.at.Addresses[0]}
			}()
			go func() {
				addr, err := n.container()
				given <- gift{addr, err}
			}()
		}
	}
	has := map[string]bool{}
	for range cap(given) {
		g := <-given
		if g.err != nil || has[g.addr] {
			t.Fatalf("%q is given twice, or: %v", g.addr, g.err)
		}
		has[g.addr] = true
	}
	awaitUpkeep(t, "what is leased ahead", func() bool { return len(leases()["reserve"]) == 2*2*ownersReserve })

	a, b := nodes[0], nodes[1]
	a.link.Cut()
	ended := pods[0][0]
	a.must(ended.del()) // and the circuit breaker is open
	if !leased(ended) {
		t.Error("its address is free in an etcd that was not asked")
	}
	for i := range ownersReserve + 1 {
		p := a.owned(fmt.Sprint("away", i))
		err := p.add()
		switch {
		case i < ownersReserve && err != nil:
			t.Errorf("the reserve was not used: %v", err)
		case i == ownersReserve && (!errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "etcd")):
			t.Errorf("without a reserve: %v", err)
		case err != nil:
		case has[p.at.Addresses[0]]:
			t.Errorf("%s is given twice", p.at.Addresses[0])
		default:
			has[p.at.Addresses[0]] = true
			pods[0] = append(pods[0], p)
		}
	}
	for range each {
		addr, err := b.container()
		if b.must(err); has[addr] {
			t.Errorf("%s is given twice", addr)
		}
		has[addr] = true
	}
	a.link.Heal()
	awaitUpkeep(t, "the release of the pod that has ended, and the record of those that have begun", func() bool {
		return !leased(ended) && !slices.ContainsFunc(pods[0][1:], func(p *sharedPod) bool { return !leased(p) })
	})
	delete(has, ended.at.Addresses[0])

	b.crash()
	for _, p := range pods[1] {
		now, err := b.network.Attachments.Check(b.ctx, &p.req.Owner)
		if b.must(err); !slices.Equal(now.Addresses, p.at.Addresses) || now.State != "lent" {
			t.Errorf("after the crash %s has %+v", p.req.Owner.ID, now)
		}
	}
	for range each {
		addr, err := a.container()
		if a.must(err); has[addr] {
			t.Errorf("%s is given twice", addr)
		}
		has[addr] = true
	}
	for i, all := range pods {
		for _, p := range all {
			if p != ended {
				nodes[i].must(p.del())
			}
		}
	}
	for _, n := range nodes {
		s, err := n.network.Status(n.ctx, &admin.StatusRequest{})
		if n.must(err); len(s.Devices)+len(s.Networks) > 0 {
			t.Errorf("left: %+v", s)
		}
	}
	awaitUpkeep(t, "the release of the addresses", func() bool {
		return !slices.ContainsFunc(append(pods[0], pods[1]...), func(p *sharedPod) bool { return leased(p) })
	})
}
