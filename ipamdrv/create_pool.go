package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/semaphore"

	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// creator handles requests for pools.
type creator struct {
	pools    *pools
	host     func() ([]netip.Prefix, error)
	defaults []DefaultPool

	// oneAtATime is held during a request: of many requests that look for a subnet at once, most would find it taken, and look again.
	oneAtATime *semaphore.Weighted
}

// request creates or joins a pool.
func (c *creator) request(ctx context.Context, q *poolRequest) (h pool.Handle, err error) {
	if err = c.oneAtATime.Acquire(ctx, 1); err != nil {
		return pool.Handle{}, fmt.Errorf("waiting for an earlier request: %w", err)
	}
	defer c.oneAtATime.Release(1)
	err = pool.Retry(ctx, func() (err error) {
		h, err = c.createOrJoin(ctx, q)
		return err
	})
	return h, err
}

// createOrJoin is one attempt of request. Afterwards the request has the pool's subnet.
func (c *creator) createOrJoin(ctx context.Context, q *poolRequest) (pool.Handle, error) {
	var conds []store.Cond
	if q.config.PoolName != "" {
		h, free, err := c.joinByName(ctx, q)
		if err != nil || h.ID != "" {
			return h, err
		}
		conds = append(conds, free)
	}
	if err := c.checkGroup(ctx, q); err != nil {
		return pool.Handle{}, err
	}
	if q.rec.Subnet.IsValid() {
		return c.create(ctx, q, conds)
	}
	subnet, free, err := c.allocateSubnet(ctx, q.v6)
	if err != nil {
		return pool.Handle{}, err
	}
	withSubnet := *q // a copy: the next attempt may find another subnet
	withSubnet.rec.Subnet, withSubnet.rec.FromDefault = subnet, true
	if err := withSubnet.check(); err != nil {
		return pool.Handle{}, err
	}
	h, err := c.create(ctx, &withSubnet, append(conds, free))
	if err == nil {
		*q = withSubnet
	}
	return h, err
}

// create creates a pool.
func (c *creator) create(ctx context.Context, q *poolRequest, conds []store.Cond) (pool.Handle, error) {
	h := pool.Handle{ID: pool.NewID()}
	if q.config.PoolName != "" {
		h.Share = pool.NewID()
	}
	node, err := c.pools.node.ID(ctx)
	if err != nil {
		return pool.Handle{}, err
	}
	p := c.pools.get(h.ID)
	if err := p.Lock(ctx); err != nil { // no other request knows the pool
		return pool.Handle{}, err
	}
	defer p.Unlock()
	if err := p.Create(ctx, h, q.rec, q.config, node, conds); err != nil {
		c.pools.drop(p)
		return h, err
	}
	return h, nil
}

// joinByName joins the shared pool that the request names. If there is none, the handle is empty, and free is the condition that no other
// request creates it.
func (c *creator) joinByName(ctx context.Context, q *poolRequest) (h pool.Handle, free store.Cond, err error) {
	key := pool.NameKey(q.config.PoolName, q.v6)
	kv, err := c.pools.ledger.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return pool.Handle{}, store.Absent(key), nil
	}
	if err != nil {
		return pool.Handle{}, store.Cond{}, err
	}
	h, err = c.join(ctx, string(kv.Value), q)
	if errors.Is(err, store.ErrNotFound) { // the pool could not be read when it was removed, so that its name stayed
		return pool.Handle{}, store.Unchanged(kv), nil
	}
	return h, store.Cond{}, err
}

// join adds the request's network to the shared pool id. The error matches [store.ErrNotFound] if the pool does not exist any more.
func (c *creator) join(ctx context.Context, id string, q *poolRequest) (pool.Handle, error) {
	p := c.pools.get(id)
	if err := p.Lock(ctx); err != nil {
		return pool.Handle{}, err
	}
	defer p.Unlock()
	if err := p.Load(ctx); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			c.pools.drop(p)
		}
		return pool.Handle{}, err
	}
	rec := p.Record()
	if err := c.checkSame(rec, q); err != nil {
		return pool.Handle{}, err
	}
	node, err := c.pools.node.ID(ctx)
	if err != nil {
		return pool.Handle{}, err
	}
	h, err := p.Join(ctx, pool.ShareRecord{V: pool.RecordVersion, Created: q.rec.Created, Node: node, Network: q.rec.Network}, q.config)
	if err != nil {
		return h, err
	}
	q.rec.Subnet = rec.Subnet
	if c.pools.node != nil && p.Load(ctx) == nil { // if it cannot be loaded now, the first request for an address does it
		return h, c.pools.follow(ctx, p)
	}
	return h, nil
}

// checkSame refuses a request to join a shared pool that differs from what the request says.
func (c *creator) checkSame(have pool.Record, q *poolRequest) error {
	const same = "networks that share a pool must say the same of it"
	name := q.config.PoolName
	switch {
	case !q.rec.Subnet.IsValid():
		if taken, err := c.overlappingHostSubnet(have.Subnet); err != nil || taken.IsValid() {
			return errors.Join(err, pool.Refuse(ErrInvalid, "pool %q has subnet %s, which the host has, too (%s); if that is meant, "+
				"give it with --subnet", name, have.Subnet, taken))
		}
	case q.rec.Subnet != have.Subnet:
		return pool.Refuse(ErrInvalid, "pool %q has subnet %s; %s", name, have.Subnet, same)
	}
	if q.rec.Range != have.Range {
		is := "none"
		if have.Range.IsValid() {
			is = have.Range.String()
		}
		return pool.Refuse(ErrInvalid, "pool %q has ip-range %s; %s", name, is, same)
	}
	for _, o := range option.All() {
		if is := have.Options[o.Name]; number.Canonical(is) != number.Canonical(q.rec.Options[o.Name]) {
			if is == "" {
				is = "the default"
			}
			return pool.Refuse(ErrInvalid, "pool %q has %s for option %s; %s", name, is, o.Name, same)
		}
	}
	stored, err := option.ParseStored(have.Options)
	return errors.Join(err, pool.RefuseNewer(fmt.Sprintf("%q", name), stored.Newer))
}
