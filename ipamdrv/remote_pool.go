package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/ipamdrv/remote"
)

// The addresses of a pool with the option remote are leased by an IPAM server. Pools and leases are in this node's own ledger, with the key of each
// lease at the server, see package pool. Only a request for a network or an address waits for the server. What is released here is released
// there by a loop, until the server has answered.

const (
	// remoteEvery is the time between two looks for keys to release; a release here does not wait for it.
	remoteEvery = time.Second
	// remoteAtOnce is how many keys are released at the same time.
	remoteAtOnce = 8
)

// remoteBackoff is the pause after a server has refused to release what is released here.
var remoteBackoff = retry.Backoff{First: time.Second, Max: time.Minute}

// remoteLeases are the leases of this node's containers at an IPAM server.
type remoteLeases struct {
	pools   *pools
	server  *remote.Client // nil for none
	host    string         // this node's name, for people
	dry     bool           // the server is not asked for addresses
	breaker *node.Breaker  // of the server; nil for none
	log     *zap.Logger
	wake    wakeup

	mu     sync.Mutex      // guards the field below
	asking map[string]bool // keys under which the server is being asked: they are not to be released yet
}

// newRemoteLeases returns the leases of a driver.
func newRemoteLeases(ps *pools, c Config) *remoteLeases {
	m := &remoteLeases{pools: ps, server: c.Remote, host: c.NodeName, dry: c.dry, log: c.Log, wake: newWakeup(), asking: map[string]bool{}}
	if c.Remote != nil {
		m.breaker = node.NewBreakerOf(func(err error) bool { return errors.Is(err, remote.ErrUnavailable) }, c.Remote.Ping)
	}
	return m
}

// ask asks the server, unless it is known not to answer. The error is for the engine's user. A client that has gone says nothing of the server.
func (m *remoteLeases) ask(ctx context.Context, request func() error) error {
	err := m.breaker.Unavailable()
	if err == nil {
		if err = request(); !errors.Is(ctx.Err(), context.Canceled) {
			m.breaker.Report(err)
		}
	}
	for from, to := range map[error]error{remote.ErrFull: ErrFull, remote.ErrInUse: ErrInUse, remote.ErrUnknown: ErrInvalid, remote.ErrInvalid: ErrInvalid} {
		if errors.Is(err, from) {
			return pool.Refuse(to, "%v", err)
		}
	}
	return err
}

// complete completes a request for a pool whose addresses the server leases: with the name of its network, and with its gateway, unless the user
// gave another. The pool's record has both as its options.
func (m *remoteLeases) complete(ctx context.Context, q *poolRequest) error {
	given := q.rec.Options["remote"]
	switch {
	case given == option.RemoteOff, q.config.SLAAC && q.v6:
		return nil
	case m.server == nil && given == "", q.config.DHCP && given == "":
		return nil
	case m.server == nil:
		return pool.Refuse(ErrInvalid, "ipam option remote: needs STORE=https://...")
	case q.rec.Range.IsValid():
		return pool.Refuse(ErrInvalid, "ipam option remote: not together with --ip-range: the IPAM server chooses the addresses")
	}
	var all []remote.Network
	err := m.ask(ctx, func() (err error) {
		all, err = m.server.Networks(ctx)
		return err
	})
	if err != nil {
		return err
	}
	name, subnet, err := m.find(all, q)
	if err != nil {
		return err
	}
	if q.rec.Options == nil {
		q.rec.Options = map[string]string{}
	}
	q.rec.Options["remote"] = name
	if err := q.setGateway(subnet.Gateway); err != nil {
		return err
	}
	if err := checkUsable(q.config); err != nil {
		return pool.Invalid(err)
	}
	m.log.Info("network of the IPAM server", zap.Stringer("pool", q.rec.Subnet), zap.String("server", m.server.Server()),
		zap.String("network", name), zap.String("gateway", q.rec.Options["gateway"]))
	return q.check()
}

// find returns the network of the server that a request means, as a value of the option remote, and its subnet.
func (m *remoteLeases) find(all []remote.Network, q *poolRequest) (name string, of remote.Subnet, err error) {
	refuse := func(format string, args ...any) (string, remote.Subnet, error) {
		return "", remote.Subnet{}, pool.Refuse(ErrInvalid, "IPAM server %s: %s", m.server.Server(), fmt.Sprintf(format, args...))
	}
	want := q.rec.Options["remote"]
	var found, has []string
	for _, n := range all {
		if option.IsNetwork(want) && n.Name != want {
			continue
		}
		for _, s := range n.Subnets {
			if s.Subnet == q.rec.Subnet {
				found, of = append(found, n.Name), s
			}
			if s.Subnet.Addr().Is6() == q.v6 {
				has = append(has, s.Subnet.String()+" ("+n.Name+")")
			}
		}
	}
	slices.Sort(has)
	switch {
	case len(found) == 1 && option.IsNetwork(found[0]):
		return found[0], of, nil
	case len(found) == 1: // it has a name that the option cannot have
		return option.AnyNetwork, of, nil
	case len(found) > 1:
		return refuse("networks %s have subnet %s; name one with --ipam-opt remote=%s", strings.Join(found, " and "), q.rec.Subnet, found[0])
	case len(has) == 0:
		return refuse("it has no network for this request; with --ipam-opt remote=off this node chooses the addresses itself")
	}
	return refuse("it has no network for this request; create the network with one of its subnets, --subnet=... of %s; or with --ipam-opt "+
		"remote=off, so that this node chooses the addresses itself", strings.Join(has, ", "))
}

// remoteRequest returns what the server is asked for.
func (m *remoteLeases) remoteRequest(p *pool.Pool, q addressRequest) remote.Request {
	r := remote.Request{Network: p.Config().Remote, Subnet: p.Subnet().Prefix, PodID: q.lease.Name, MAC: q.lease.MAC, Host: m.host}
	if r.Network == option.AnyNetwork {
		r.Network = ""
	}
	if q.addr.IsValid() {
		r.Addresses = []netip.Addr{q.addr}
	}
	return r
}

// fromRemote leases an address from the server, and records it. What fails is released at the server, as far as it was leased there.
func (al *allocator) fromRemote(ctx context.Context, h pool.Handle, r remote.Request, q addressRequest) (string, error) {
	m := al.pools.remote
	switch {
	case m.server == nil:
		return "", pool.Refuse(ErrInvalid, "the addresses of this pool are an IPAM server's; set STORE=https://... again")
	case m.dry && q.addr.IsValid():
		return al.record(ctx, h, q)
	case m.dry:
		return "", pool.Refuse(ErrInvalid, "the IPAM server chooses the address")
	}
	if err := m.breaker.Unavailable(); err != nil {
		return "", err
	}
	key := q.lease.Token
	end, err := m.begin(ctx, h.ID, key)
	if err != nil {
		return "", err
	}
	defer end()
	var l remote.Lease
	err = m.ask(ctx, func() (err error) {
		r.HostIP = m.server.HostIP(ctx)
		l, err = m.server.Allocate(ctx, key, r)
		return err
	})
	if err != nil {
		return "", err
	}
	if len(l.IPs) != 1 || l.IPs[0].Address.Masked() != r.Subnet || q.addr.IsValid() && l.IPs[0].Address.Addr() != q.addr {
		return "", pool.Refuse(ErrInvalid, "IPAM server %s gives %s, which was not asked for", m.server.Server(), addressesOf(l))
	}
	q.addr, q.lease.Remote = l.IPs[0].Address.Addr(), key
	got, err := al.record(ctx, h, q)
	if errors.Is(err, ErrInUse) {
		err = pool.Refuse(ErrInUse, "IPAM server %s gives %s, which is %v; it must not give this address", m.server.Server(), q.addr, err)
	}
	return got, err
}

// addressesOf lists the addresses of a lease, for people.
func addressesOf(l remote.Lease) (all []netip.Prefix) {
	for _, ip := range l.IPs {
		all = append(all, ip.Address)
	}
	return all
}

// begin records a key before the server is asked for an address under it. Until end is called the key is not released.
func (m *remoteLeases) begin(ctx context.Context, poolID, key string) (end func(), err error) {
	set := func(asking bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if delete(m.asking, key); asking {
			m.asking[key] = true
		}
	}
	set(true)
	if err := m.pools.ledger.BeginRemote(ctx, poolID, key); err != nil {
		set(false)
		return nil, err
	}
	return func() {
		set(false)
		m.wake.signal()
	}, nil
}

// run releases at the server what is released here, until ctx ends.
func (m *remoteLeases) run(ctx context.Context) error {
	if m.server == nil {
		<-ctx.Done()
	}
	var failing retry.Attempt
	var last error
	for ctx.Err() == nil {
		if failing.Wait(remoteBackoff) == 0 || errors.Is(last, remote.ErrUnavailable) { // then the breaker paces it
			last = m.release(ctx)
			switch {
			case last == nil && failing.Failures > 0:
				m.log.Info("addresses are released at the IPAM server after all")
				failing = retry.Attempt{}
			case last != nil && ctx.Err() == nil:
				if failing.Failures == 0 {
					m.log.Warn("addresses are released here and not yet at the IPAM server; it is retried", zap.Error(last))
				}
				failing = failing.Failed()
			}
		}
		m.wake.wait(ctx, remoteEvery)
	}
	return ctx.Err()
}

// owed lists the keys that are to be released: under which the server is not being asked, and that have a record after that was seen. A request
// removes the record of its key before it ends.
func (m *remoteLeases) owed(ctx context.Context) ([]string, error) {
	if m.pools.node != nil { // a store that nodes share has none
		return nil, nil
	}
	keys, err := m.pools.ledger.RemoteKeys(ctx)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	m.mu.Lock()
	keys = slices.DeleteFunc(keys, func(key string) bool { return m.asking[key] })
	m.mu.Unlock()
	now, err := m.pools.ledger.RemoteKeys(ctx)
	return slices.DeleteFunc(keys, func(key string) bool { return !slices.Contains(now, key) }), err
}

// release releases at the server what is released here.
func (m *remoteLeases) release(ctx context.Context) error {
	keys, err := m.owed(ctx)
	if err != nil || len(keys) == 0 {
		return err
	}
	if err := m.breaker.Unavailable(); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(remoteAtOnce)
	for _, key := range keys {
		all.Go(func() error {
			if m.breaker.Unavailable() != nil {
				return nil // the reason is another key's
			}
			err := m.ask(ctx, func() error { return m.server.Release(ctx, key) })
			if err == nil {
				err = m.pools.ledger.EndRemote(ctx, key)
			}
			return err
		})
	}
	return all.Wait()
}
