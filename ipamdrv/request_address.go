package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// allocator handles requests for addresses.
type allocator struct {
	pools   *pools
	probe   Prober
	servers DHCP
	gc      *gc
}

// request leases an address of the pool with this handle, of its group, or of the prefetched ones.
func (al *allocator) request(ctx context.Context, handle string, q addressRequest) (string, error) {
	if al.pools.node == nil {
		return al.requestOwn(ctx, handle, q)
	}
	return al.requestShared(ctx, handle, q)
}

// requestOwn leases an address of the pool with this handle, or of its group.
func (al *allocator) requestOwn(ctx context.Context, handle string, q addressRequest) (string, error) {
	h, ok := pool.ParseHandle(handle)
	if !ok {
		return "", refuseHandle(handle, errNoPool())
	}
	for {
		open := al.pools.open
		if q.any() {
			open = al.pools.enter
		}
		p, err := open(ctx, h)
		if err != nil {
			return "", refuseHandle(handle, err)
		}
		switch {
		case q.lease.Kind == pool.Gateway: // the pool has it
		case pool.UsesDHCP(p):
			seg := segmentOf(p)
			return al.fromServer(ctx, h, p, q, func() (string, error) { return al.fromDHCP(ctx, h, seg, q) })
		case pool.UsesRemote(p):
			r := al.pools.remote.remoteRequest(p, q)
			return al.fromServer(ctx, h, p, q, func() (string, error) { return al.fromRemote(ctx, h, r, q) })
		}
		got, err := al.fromPool(ctx, h, p, q)
		switch err = waitLoaded(ctx, err); {
		case errors.Is(err, errUnread):
			q.choice |= pool.Unread
		case !errors.Is(err, errLoaded):
			return got, err
		}
	}
}

// refuseHandle is the error of a request whose pool cannot be used.
func refuseHandle(handle string, why error) error {
	return fmt.Errorf("pool %.80q: request address: %w", handle, why)
}

// fromServer leases an address of p, which the caller has locked, by asking a server. It unlocks p first: the server may take seconds.
func (al *allocator) fromServer(ctx context.Context, h pool.Handle, p *pool.Pool, q addressRequest, ask func() (string, error)) (string, error) {
	subnet := p.Subnet()
	p.Unlock()
	got, err := ask()
	if err != nil {
		err = fmt.Errorf("pool %s: request %s: %w%s", subnet.Prefix, q, err, al.gc.expiryHint(ctx, h, q.addr, err))
	}
	return got, err
}

// loadingError is the error of a request that needs to know all leases of a pool, which are being read.
type loadingError struct {
	error
	loaded <-chan struct{}
}

// Unwrap returns the error of the pool.
func (e *loadingError) Unwrap() error { return e.error }

var (
	// errLoaded: the leases were read meanwhile, and the request can be tried again.
	errLoaded = errors.New("loaded")
	// errUnread: the leases were not read in time, and the request can be tried again without them.
	errUnread = errors.New("not loaded yet")
)

const (
	// loadWait bounds the wait of a request for the leases of a pool; an engine waits some 10 seconds for an answer.
	loadWait = 8 * time.Second
	// keptWait bounds the wait for the address that is kept for a container by default. It is long enough to read some 10,000 leases.
	keptWait = time.Second
)

// waitLoaded waits, without the lock of the pool, if err says that its leases are being read. Then it returns errLoaded. If they are not read
// in time, it returns errUnread if the request can do without, or else err. Other errors it returns.
func waitLoaded(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var loading *loadingError
	if !errors.As(err, &loading) {
		return err
	}
	if errors.Is(err, pool.ErrLoadingKept) {
		bound := keptWait
		if end, ok := ctx.Deadline(); ok { // the request itself needs the other half
			bound = min(bound, time.Until(end)/2)
		}
		if !isClosedWithin(ctx, loading.loaded, bound) {
			return errUnread
		}
		return errLoaded
	}
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	select {
	case <-loading.loaded:
		return errLoaded
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", err, ctx.Err())
	}
}

// drawAfter is how long a request that can have a prefetched address waits for the shared store. It is long for an etcd that works, and short
// for a container that starts.
const drawAfter = 200 * time.Millisecond

// requestShared is request in a store that nodes share. While that is not available, the address is a prefetched one; so it is if the store is
// slow, or an earlier request waits for it with the pool's lock.
func (al *allocator) requestShared(ctx context.Context, handle string, q addressRequest) (string, error) {
	n := al.pools.node
	if err := al.pools.breaker.Unavailable(); err != nil {
		return al.prefetched(ctx, handle, q, fmt.Errorf("pool %.80q: request %s: %w", handle, q, err))
	}
	within, cancel := ctx, context.CancelFunc(func() {})
	if h, ok := pool.ParseHandle(handle); ok && q.any() && n.HasPrefetched(ctx, h) {
		within, cancel = context.WithTimeout(ctx, drawAfter)
	}
	got, err := al.requestOwn(within, handle, q)
	cancel()
	if err != nil {
		al.pools.breaker.Report(err)
		return al.prefetched(ctx, handle, q, err)
	}
	return got, nil
}

// fromPool leases an address of p, or of its group. It unlocks p.
func (al *allocator) fromPool(ctx context.Context, h pool.Handle, p *pool.Pool, q addressRequest) (string, error) {
	subnet, group := p.Subnet(), p.Config().Group
	var got string
	var err error
	if group != "" && q.any() {
		p.Unlock()
		got, err = al.fromGroup(ctx, h.ID, group, subnet, q)
	} else {
		err = p.UnlockAfter(func() (err error) {
			got, err = al.allocate(ctx, p, q.from(h))
			return err
		})
	}
	if err != nil {
		return "", fmt.Errorf("pool %s: request %s: %w%s", subnet.Prefix, q, err, al.gc.expiryHint(ctx, h, q.addr, err))
	}
	return got, nil
}

// allocate leases an address of p, which the caller has locked, and returns it in the engine's form.
func (al *allocator) allocate(ctx context.Context, p *pool.Pool, q addressRequest) (string, error) {
	subnet := p.Subnet()
	var a netip.Addr
	var added bool
	probe := pool.NewProbe(al.probe, p.Config().Probe, al.pools.log)
	if q.lease.Kind == pool.Exact { // from then on only containers request addresses: an engine requests those of --aux-address before
		network, err := al.pools.networkOf(ctx, p, q.share)
		if err != nil {
			return "", err
		}
		q.lease.Container = network != ""
	}
	try := func() (err error) {
		if err = p.Load(ctx); err == nil {
			a, added, err = allocateOnce(ctx, p, q, probe)
		}
		return err
	}
	err := pool.Retry(ctx, try)
	switch {
	case errors.Is(err, pool.ErrLoading):
		return "", &loadingError{err, p.Loaded()}
	case errors.Is(err, store.ErrNotFound): // while this request waited for others
		err = pool.Refuse(ErrUnknownPool, "removed meanwhile; create the network again")
	}
	if err != nil {
		return "", err
	}
	al.noteLease(ctx, p, a, q)
	if !added {
		return subnet.CIDR(a), nil
	}
	return subnet.CIDR(a), undoIfGone(ctx, func(ctx context.Context) error {
		_, err := p.Release(ctx, a, pool.Released{Share: q.share, At: time.Now()})
		if al.pools.retryable(err) {
			err = al.pools.enqueue(ctx, p.ID(), pool.Op{Do: pool.ReleaseAddress, Share: q.share, Addr: a})
		}
		return err
	})
}

// noteLease notes what tells later which network has the pool, and whether its gateway was invented. The caller has the lock on p.
func (al *allocator) noteLease(ctx context.Context, p *pool.Pool, a netip.Addr, q addressRequest) {
	h := pool.Handle{ID: p.ID(), Share: q.share}
	if q.lease.Kind != pool.Gateway || p.Load(ctx) != nil { // then the gateway counts as the user's
		al.pools.unbound.leased(h, a, q, false)
		return
	}
	invented := p.Record().Invented
	al.pools.unbound.leased(h, a, q, invented)
	if al.pools.node == nil {
		return
	}
	if !invented {
		a = netip.Addr{}
	}
	if err := al.pools.node.SetInvented(ctx, h, a); err != nil {
		al.pools.log.Warn("not recorded how the gateway was requested: after a restart it counts as the user's", zap.Stringer("id", h), zap.Error(err))
	}
}

// allocateOnce is one attempt of allocate, by the kind of the request. added is false if the network had the address already.
func allocateOnce(ctx context.Context, p *pool.Pool, q addressRequest, probe pool.Probe) (a netip.Addr, added bool, err error) {
	switch {
	case q.lease.Kind == pool.Gateway:
		return p.AllocateGateway(ctx, q.addr, q.lease)
	case q.lease.Kind == pool.Exact, q.lease.DHCP != nil, q.lease.Remote != "":
		return q.addr, true, p.AllocateExact(ctx, q.addr, q.lease, probe)
	}
	a, err = p.Allocate(ctx, q.lease, q.choice, probe)
	return a, true, err
}

// prefetched takes a prefetched address if that helps against a failure: the store is not available, or the pool is full. Otherwise it returns
// the failure. After a rollback of the store nothing is taken: another node may get the same address. Nor is it by a node that the store
// refuses because a newer version is needed.
func (al *allocator) prefetched(ctx context.Context, handle string, q addressRequest, failure error) (string, error) {
	n := al.pools.node
	h, ok := pool.ParseHandle(handle)
	refused := errors.Is(failure, store.ErrRolledBack) || errors.Is(failure, store.ErrNewer)
	helps := node.IsUnavailable(failure) && !refused || errors.Is(failure, ErrFull)
	if !ok || !q.any() || ctx.Err() != nil || !helps {
		return "", failure
	}
	if errors.Is(failure, cluster.ErrElsewhere) { // it has the same addresses
		return "", failure
	}
	if err := n.Member().CheckMachine(ctx); err != nil {
		return "", errors.Join(failure, err)
	}
	a, subnet, err := n.TakePrefetched(ctx, h, q.from(h).lease)
	if err != nil || !a.IsValid() {
		return "", errors.Join(failure, err)
	}
	err = undoIfGone(ctx, func(ctx context.Context) error { // this node's disk may be slow, too
		return n.Enqueue(ctx, h.ID, pool.Op{Do: pool.ReleaseAddress, Share: h.Share, Addr: a, Token: q.lease.Token})
	})
	if err != nil {
		return "", errors.Join(failure, err)
	}
	al.pools.unbound.settle(h) // a container has an address of it: its network exists
	al.pools.log.Info("prefetched address allocated", zap.Stringer("address", a), zap.Stringer("id", h), zap.NamedError("because", failure))
	return netip.PrefixFrom(a, subnet.Bits()).String(), nil
}
