package scale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/journal"
)

// callTimeout is how long the plugin works on a call: its setting HANDLER_TIMEOUT.
const callTimeout = 10 * time.Second

// node is a node of the cluster: a driver with an etcd client and a ledger of its own. The ledger is in memory: a hundred files that are
// synced to one disk would be measured otherwise.
type node struct {
	t      *testing.T
	number int
	prefix string
	etcd   []string
	dir    string
	own    *store.Memory

	shared *counted
	driver *ipamdrv.Driver
	pool   string // the handle
	end    func()
}

// newNode starts a node.
func (r *run) newNode(number int) *node {
	r.T.Helper()
	n := &node{t: r.T, number: number, prefix: r.prefix, etcd: r.etcd.Direct(), dir: r.T.TempDir(), own: store.NewMemory()}
	n.start()
	return n
}

// start makes the driver, with its background work.
func (n *node) start() {
	n.t.Helper()
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: n.etcd, Prefix: n.prefix})
	if err != nil {
		n.t.Fatal(err)
	}
	n.shared = &counted{Store: s}
	j := journal.New(filepath.Join(n.dir, "journal"))
	n.driver, err = ipamdrv.New(ipamdrv.Config{Store: n.shared, Own: n.own, Journal: j, NodeName: fmt.Sprint("n", n.number),
		Uses: func(context.Context) ([]ipamdrv.Use, error) { return []ipamdrv.Use{{Network: n.network()}}, nil }})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.driver.Maintain(ctx) // it ends with its context
	}()
	n.end = func() {
		cancel()
		<-done
		if d, ok := any(n.driver).(interface{ Close() }); ok { // the driver had none before it followed the leases of pools
			d.Close()
		}
		if err := errors.Join(s.Close(), j.Close()); err != nil {
			n.t.Error(err)
		}
	}
}

// network is the ID of the node's network.
func (n *node) network() string { return fmt.Sprint("network-", n.number) }

// restart ends the node's process and starts another one.
func (n *node) restart() {
	n.end()
	n.own = n.own.Reopen()
	n.start()
}

// join creates the shared pool, or joins it, as an engine does for docker network create.
func (n *node) join(subnet netip.Prefix) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), callTimeout)
	defer cancel()
	r, err := n.driver.RequestPool(ctx, &ipam.RequestPoolRequest{AddressSpace: "passthrough-local", Pool: subnet.String(),
		Options: map[string]string{"pool": "lan"}})
	if err == nil {
		n.pool = r.PoolID
	}
	return err
}

// bind tells the driver that the network exists, as the network driver does.
func (n *node) bind(subnet netip.Prefix) {
	n.driver.BindPool(n.t.Context(), n.network(), "passthrough-local", subnet.String(), "", nil, false)
}

// request requests an address: any, if a is not valid.
func (n *node) request(a netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), callTimeout)
	defer cancel()
	q := &ipam.RequestAddressRequest{PoolID: n.pool}
	if a.IsValid() {
		q.Address = a.String()
	}
	r, err := n.driver.RequestAddress(ctx, q)
	if err != nil {
		return a, err
	}
	p, err := netip.ParsePrefix(r.Address)
	return p.Addr(), err
}

// release releases an address.
func (n *node) release(a netip.Addr) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), callTimeout)
	defer cancel()
	_, err := n.driver.ReleaseAddress(ctx, &ipam.ReleaseAddressRequest{PoolID: n.pool, Address: a.String()})
	return err
}

// await waits until the node has read the leases of its pool, and returns when that was. If the node reads them with its first request, it
// makes one.
func (n *node) await(bound time.Duration) (time.Time, bool) {
	for end := time.Now().Add(bound); time.Now().Before(end); {
		if at := n.shared.loaded.Load(); at != nil {
			return *at, true
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Time{}, false
}
