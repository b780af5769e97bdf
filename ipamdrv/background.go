package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// roundTimeout bounds one round of Maintain.
const roundTimeout = time.Minute

// Maintain does the background work until ctx ends: it flushes the outbox, prefetches addresses, and collects leases and pools that are not
// in use. It returns an error that matches that of ctx.
func (d *Driver) Maintain(ctx context.Context) error {
	failed := false
	for {
		round, cancel := context.WithTimeout(ctx, roundTimeout)
		err := d.maintain(round)
		d.watchServers(round)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil && !failed:
			d.log.Warn("background work on addresses failed; it is retried", zap.Error(err))
		case err == nil && failed:
			d.log.Info("background work on addresses succeeded")
		}
		failed = err != nil
		d.pools.background.wait(ctx, d.pause(err))
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), d.pools.node.SaveWatermark(context.WithoutCancel(ctx), d.pools.ledger.Store))
		}
	}
}

// pause returns how long Maintain waits after a round with that result. A store that is this node's alone needs no round but for garbage
// collection: what is to be done before wakes Maintain.
func (d *Driver) pause(err error) time.Duration {
	if d.pools.node != nil || err != nil {
		return d.every
	}
	return max(d.every, gcInterval)
}

// A wakeup ends the pause of a loop.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// signal ends the pause of now, or the next one.
func (w wakeup) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// wait waits for a time, for a signal, or for the end of ctx.
func (w wakeup) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w:
	case <-timer.C:
	}
}

// maintain is one round of Maintain. It ends with the first failure of a store, and opens the circuit breaker at once: what comes after it
// would fail as slowly, and by then the store may be back.
func (d *Driver) maintain(ctx context.Context) error {
	if err := d.pools.breaker.Unavailable(); err != nil {
		return err
	}
	err := d.pools.handleNodeError(ctx, d.maintainNode(ctx))
	d.pools.breaker.Report(err)
	if node.IsUnavailable(err) {
		return err
	}
	collecting := d.pools.handleNodeError(ctx, d.gc.run(ctx))
	d.pools.breaker.Report(collecting)
	return errors.Join(err, collecting)
}

// maintainNode is one round of the outbox, and of the other work for a shared store.
func (d *Driver) maintainNode(ctx context.Context) error {
	n := d.pools.node
	if n == nil {
		return d.pools.flushAll(ctx)
	}
	err := d.pools.flushAll(ctx)
	if err == nil {
		err = d.alloc.maintainHandles(ctx)
	}
	if err == nil {
		err = n.Member().See(ctx)
	}
	return errors.Join(err, n.SaveWatermark(ctx, d.pools.ledger.Store))
}

// flushAll does the ops of the outbox for all pools.
func (ps *pools) flushAll(ctx context.Context) error {
	if ps.queue == nil {
		return nil
	}
	ids, err := ps.queue.Pools(ctx)
	if err != nil {
		return err
	}
	var newer error
	for _, id := range ids {
		p := ps.get(id)
		if err := p.Lock(ctx); err != nil {
			return err
		}
		err := p.UnlockAfter(func() error { return ps.flush(ctx, p) })
		switch {
		case errors.Is(err, store.ErrNewer): // until this node is upgraded; other pools do not wait for that
			newer = err
		case err != nil:
			return err
		}
	}
	return newer
}

// flush does the ops of the outbox for one pool. The caller has the lock.
func (ps *pools) flush(ctx context.Context, p *pool.Pool) error {
	entries, err := ps.queue.Entries(ctx, p.ID())
	if err != nil {
		return err
	}
	if len(entries) > 0 && !p.Upgrade() {
		return ps.flush(ctx, p) // another request may have done them meanwhile
	}
	for _, e := range entries {
		log := ps.log.With(zap.String("op", string(e.Do)), zap.Stringer("address", e.Addr), zap.String("pool", p.ID()))
		failure := ps.do(ctx, p, e)
		if failure != nil && !ps.stuck(failure) {
			return fmt.Errorf("work left from before: %w", failure)
		}
		if err := ps.queue.Dequeue(ctx, p.ID(), e); err != nil {
			return err
		}
		if failure != nil {
			log.Error("outbox: given up", zap.Error(failure))
		} else {
			log.Info("outbox: done")
		}
	}
	return nil
}

// fence makes sure that the transaction with that token is not applied from now on. On a copy of a node's disk the transactions of the outbox
// are the other machine's, and may be in flight.
func (ps *pools) fence(ctx context.Context, token string) error {
	if token == "" || ps.node == nil {
		return nil
	}
	if _, err := ps.node.Member().Cond(ctx); err != nil {
		return err
	}
	return store.Fence(ctx, ps.ledger.Store, token)
}

// do does one op. Its lease may be gone, or another container's, by now.
func (ps *pools) do(ctx context.Context, p *pool.Pool, e node.Entry) error {
	if err := ps.fence(ctx, e.Fence); err != nil {
		return err
	}
	return pool.Retry(ctx, func() (err error) {
		switch e.Do {
		case pool.ReleaseHandle:
			err = ps.doReleaseHandle(ctx, p, pool.Handle{ID: p.ID(), Share: e.Share})
		case pool.AssignLease:
			err = p.Assign(ctx, e.Op)
			if errors.Is(err, ErrInUse) { // nothing can be done about it, and the pool's other ops must not wait for it
				ps.log.Error("an address that was given while the shared ledger was away is leased to another container in it; stop one of the "+
					"two containers", zap.Stringer("address", e.Addr), zap.String("container", e.Lease.Name),
					zap.String("pool", p.ID()), zap.Error(err))
				err = nil
			}
		case pool.ReleaseAddress:
			err = ps.doReleaseAddress(ctx, p, e.Op)
		default:
			err = fmt.Errorf("record %s: %w: this version does not know op %.40q", e.Key(), store.ErrNewer, e.Do)
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// doReleaseHandle removes a handle.
func (ps *pools) doReleaseHandle(ctx context.Context, p *pool.Pool, h pool.Handle) error {
	_, gone, err := p.Remove(ctx, h)
	if gone {
		ps.drop(p)
	}
	if err == nil || errors.Is(err, store.ErrNotFound) {
		err = ps.dropHandle(ctx, p, h)
	}
	return err
}

// doReleaseAddress releases a lease. If another pool of the group gave the address, it enqueues the op for that pool.
func (ps *pools) doReleaseAddress(ctx context.Context, p *pool.Pool, o pool.Op) error {
	if err := p.Load(ctx); err != nil {
		return err
	}
	if group := p.Config().Group; group != "" && !p.Subnet().Prefix.Contains(o.Addr) {
		id, lease, err := ps.leasedVia(ctx, p.ID(), group, o.Addr)
		if err != nil || id == "" {
			return err
		}
		return ps.enqueue(ctx, id, pool.Op{Do: pool.ReleaseAddress, Addr: o.Addr, Token: lease.Token, At: o.At})
	}
	_, err := p.Release(ctx, o.Addr, pool.Released{Share: o.Share, Token: o.Token, At: o.At})
	return err
}

// maintainHandles makes sure that the pools of this node's handles are followed, and leases the addresses ahead that they lack.
func (al *allocator) maintainHandles(ctx context.Context) error {
	handles, err := al.pools.node.Handles(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range handles {
		err := al.maintainHandle(ctx, h)
		errs = append(errs, err)
		if node.IsUnavailable(err) { // so it would be for the others
			break
		}
	}
	return errors.Join(errs...)
}

// maintainHandle is maintainHandles for one handle. What cannot be done yet is done in the next round.
func (al *allocator) maintainHandle(ctx context.Context, h pool.Handle) error {
	for {
		p, err := al.pools.open(ctx, h)
		if errors.Is(err, ErrUnknownPool) {
			return nil // the engine has it, and the store may be restored
		}
		if err != nil {
			return err
		}
		loaded := p.Loaded()
		err = p.UnlockAfter(func() error {
			if al.pools.node.Deficit(h) <= 0 {
				return nil
			}
			return al.prefetch(ctx, p, h)
		})
		if errors.Is(err, pool.ErrLoading) && isClosedWithin(ctx, loaded, prefetchWait) {
			continue
		}
		if errors.Is(err, ErrFull) || errors.Is(err, pool.ErrLoading) || errors.Is(err, store.ErrNewer) {
			return nil
		}
		return err
	}
}

// prefetchWait is how long one handle's prefetch waits for the leases of its pool. Meanwhile nothing is done for other handles.
const prefetchWait = time.Second

// isClosedWithin waits for c to be closed.
func isClosedWithin(ctx context.Context, c <-chan struct{}, bound time.Duration) bool {
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	select {
	case <-c:
		return true
	case <-timeout.C:
	case <-ctx.Done():
	}
	return false
}

// prefetch leases the addresses that one handle lacks.
func (al *allocator) prefetch(ctx context.Context, p *pool.Pool, h pool.Handle) error {
	n := al.pools.node
	id, err := n.ID(ctx)
	if err != nil {
		return err
	}
	own := func(ctx context.Context, h pool.Handle) (map[netip.Addr]pool.Lease, error) {
		all, err := p.Prefetched(ctx, h)
		maps.DeleteFunc(all, func(_ netip.Addr, l pool.Lease) bool { return l.Node != id }) // another node may give them
		return all, err
	}
	if err := n.Reconcile(ctx, h, own); err != nil {
		return err
	}
	probe := pool.NewProbe(al.probe, p.Config().Probe, al.pools.log)
	for n.Deficit(h) > 0 {
		if err := al.prefetchOne(ctx, p, h, id, probe); err != nil {
			return err
		}
	}
	return nil
}

// prefetchOne leases one address ahead for the node id.
func (al *allocator) prefetchOne(ctx context.Context, p *pool.Pool, h pool.Handle, id string, probe pool.Probe) error {
	lease := pool.Lease{V: pool.RecordVersion, Kind: pool.Prefetched, Since: time.Now().UTC(), Token: pool.NewID(), Node: id}
	if h.Share != "" {
		lease.Holders = []string{h.Share}
	}
	return pool.Retry(ctx, func() error {
		if err := p.Load(ctx); err != nil {
			return err
		}
		a, err := p.Allocate(ctx, lease, pool.AnyAddress, probe)
		if err != nil {
			return err
		}
		return al.pools.node.AddPrefetched(ctx, h, a, lease)
	})
}
