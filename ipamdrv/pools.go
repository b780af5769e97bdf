package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// pools has the pools that this process uses, by ID. Their caches live in it.
type pools struct {
	ledger pool.Ledger
	node   *node.Node  // nil if the store is this node's alone
	queue  *node.Node  // the outbox: node, or see newQueue
	outbox pool.Outbox // node, or nil
	log    *zap.Logger

	breaker *node.Breaker // of the shared store; nil if it is not shared

	background wakeup // of Maintain
	unbound    *unboundPools
	leases     *dhcpLeases
	remote     *remoteLeases

	mu   sync.Mutex // guards byID
	byID map[string]*pool.Pool
}

// get returns the pool of an ID, loaded or not.
func (ps *pools) get(id string) *pool.Pool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byID[id]
	if p == nil {
		p = pool.New(id, ps.ledger, ps.outbox)
		ps.byID[id] = p
	}
	return p
}

// used returns the pool of an ID, nil if no request has used it yet.
func (ps *pools) used(id string) *pool.Pool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.byID[id]
}

// drop removes a pool that does not exist, or that this node has no handle of. The caller has the lock on p. Requests may wait for p, and
// others may add a new entry meanwhile; all find out that the pool does not exist, because IDs are not reused.
func (ps *pools) drop(p *pool.Pool) {
	p.Close()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.byID[p.ID()] == p {
		delete(ps.byID, p.ID())
	}
}

// open finds the pool of a handle, locks it and loads it; the caller unlocks it. The error matches [ErrUnknownPool] if there is none.
func (ps *pools) open(ctx context.Context, h pool.Handle) (*pool.Pool, error) {
	return ps.openBy(ctx, h, (*pool.Pool).Lock)
}

// enter is open for an allocation of any address, or a release, see [pool.Pool.Enter].
func (ps *pools) enter(ctx context.Context, h pool.Handle) (*pool.Pool, error) {
	return ps.openBy(ctx, h, (*pool.Pool).Enter)
}

func (ps *pools) openBy(ctx context.Context, h pool.Handle, lock func(*pool.Pool, context.Context) error) (*pool.Pool, error) {
	p := ps.get(h.ID)
	if err := lock(p, ctx); err != nil {
		return nil, err
	}
	found, err := false, error(nil)
	defer func() {
		if !found {
			p.Unlock()
		}
	}()
	found, err = ps.load(ctx, p, h)
	switch {
	case found:
		return p, nil
	case errors.Is(err, store.ErrNotFound):
		ps.drop(p)
		err = errNoPool()
	case err == nil:
		err = errNoPool()
	}
	return nil, err
}

// errNoPool is the error of a handle that no pool has.
func errNoPool() error { return pool.Refuse(ErrUnknownPool, "no such pool; create the network again") }

// load loads a pool, and returns whether h is a handle of it. It first does the ops of the outbox for the pool. In a shared store it
// afterwards makes sure that h is owned by this node, and that the pool's leases are followed. The caller has the lock.
func (ps *pools) load(ctx context.Context, p *pool.Pool, h pool.Handle) (found bool, err error) {
	if ps.queue != nil {
		if err := ps.flush(ctx, p); err != nil {
			return false, err
		}
	}
	if err := p.Load(ctx); err != nil {
		return false, err
	}
	found, err = p.Has(ctx, h)
	if err == nil && found && ps.node != nil {
		found, err = ps.claim(ctx, p, h)
	}
	return found && err == nil, err
}

// claim makes a handle of this node's engine this node's, in the store and in its own ledger. It may be owned by another ID: it was created
// while the store was this node's alone, or before the node lost its own ledger and with that its ID. The caller has the lock on p, which has
// h.
func (ps *pools) claim(ctx context.Context, p *pool.Pool, h pool.Handle) (found bool, err error) {
	id, err := ps.node.ID(ctx)
	if err != nil {
		return false, err
	}
	var former string
	err = pool.Retry(ctx, func() error {
		err := p.Load(ctx)
		if err == nil {
			former, err = p.SetOwner(ctx, h, id)
		}
		return err
	})
	if err == nil {
		err = p.Load(ctx)
	}
	if err == nil {
		found, err = p.Has(ctx, h)
	}
	if err != nil || !found {
		return false, err
	}
	local := p.Local(h)
	local.Adopted = former != "" // it was not created while the store was this node's alone
	if local.Adopted && former != id {
		ps.log.Warn("the pool of another node ID is taken over: this node's own ledger was lost, and it is not known which network has the pool; "+
			"addresses without a container stay in it until its network is removed (docker network rm), and those of networks that the engine "+
			"does not have any more until the former ID is removed (driver forget)", zap.Stringer("pool", local.Subnet), zap.Stringer("id", h),
			zap.String("former_node", former), zap.String("node", id))
	}
	if err := ps.node.Claim(ctx, local); err != nil {
		return false, err
	}
	return true, ps.follow(ctx, p)
}

// follow keeps the leases of a pool of this node as they are in the shared store. The caller has the lock on p, which is loaded.
func (ps *pools) follow(ctx context.Context, p *pool.Pool) error {
	shares, err := ps.node.Shares(ctx, p.ID())
	if err == nil {
		p.Follow(shares...)
	}
	return err
}

// close ends the replicas of all pools.
func (ps *pools) close() {
	ps.mu.Lock()
	all := slices.Collect(maps.Values(ps.byID))
	ps.byID = map[string]*pool.Pool{}
	ps.mu.Unlock()
	for _, p := range all {
		if p.Lock(context.Background()) == nil { // it cannot fail: the context does not end
			p.Close()
			p.Unlock()
		}
	}
}

// handleNodeError passes an error on. If the error says that this node was removed, the node starts with a new ID: its networks have no
// pools any more. If it says that the store was rolled back, the watermark is stored at once: the rollback is not visible for long.
func (ps *pools) handleNodeError(ctx context.Context, err error) error {
	if errors.Is(err, store.ErrRolledBack) {
		err = errors.Join(err, ps.node.SaveWatermark(context.WithoutCancel(ctx), ps.ledger.Store))
	}
	if ps.node == nil || !errors.Is(err, cluster.ErrRemoved) {
		return err
	}
	ps.log.Error("this node was declared lost (driver forget); the addresses of its containers may be in use elsewhere: stop "+
		"them, remove the networks that have this IPAM driver, and create them again", zap.Error(err))
	ps.close()
	return errors.Join(fmt.Errorf("%w; its networks have to be created again", err), ps.node.Reset(ctx))
}
