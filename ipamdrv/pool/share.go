package pool

import (
	"context"
	"errors"

	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/record"
)

// Create writes all records of a new pool in one transaction, under conds. node is its owner, "" in a store of this node alone. If the record
// names a network, the pool is bound to it from the start. The caller has the lock on the pool, which needs not be loaded.
func (p *Pool) Create(ctx context.Context, h Handle, rec Record, c option.Config, node string, conds []store.Cond) error {
	network := rec.Network
	if p.outbox != nil { // which network has it is this node's business
		rec.Network = ""
	}
	ops, err := creation(h, rec, c, node)
	if err != nil {
		return err
	}
	r, err := p.withUndo(ctx, Op{Do: ReleaseHandle, Share: h.Share}, func(ctx context.Context) (store.Result, error) {
		return p.ledger.Commit(ctx, append(conds, store.Absent(Key(h.ID))), ops...)
	}, LocalHandle{Handle: h, Subnet: rec.Subnet, Prefetch: c.Prefetch, Created: rec.Created, Group: c.Group, Network: network})
	if err == nil && !r.OK {
		err = ErrChanged
	}
	return err
}

// creation returns what to write for a new pool. The pool's record is the first operation, which Ledger.Commit reads back.
func creation(h Handle, rec Record, c option.Config, node string) (ops []store.Op, err error) {
	add := func(key string, rec record.Kept) {
		op, failed := record.Put(key, rec)
		ops, err = append(ops, op), errors.Join(err, failed)
	}
	if gw := c.Gateway.For(rec.Subnet); rec.Subnet.Contains(gw) {
		rec.Gateway = gw
	}
	share := ShareRecord{V: RecordVersion, Created: rec.Created, Node: node, Network: rec.Network}
	if c.PoolName == "" {
		rec.Node = node
	} else {
		rec.Network = ""
	}
	add(Key(h.ID), rec)
	if rec.Gateway.IsValid() {
		add(LeaseKey(h.ID, rec.Gateway), Lease{V: RecordVersion, Kind: Gateway, Since: rec.Created})
	}
	if c.PoolName != "" {
		ops = append(ops, store.Put(NameKey(c.PoolName, rec.Subnet.Addr().Is6()), []byte(h.ID)))
		add(shareKey(h), share)
	}
	if rec.FromDefault {
		ops = append(ops, store.Put(CarvedKey(rec.Subnet), []byte(h.ID)))
	}
	return ops, err
}

// Join adds a network to a shared pool. It does not write the pool's record, which all nodes would have to read again; a concurrent removal of
// the pool has the condition that no share was made. While there may be older nodes, whose removals do not have it, Join writes the record.
// created is that of the request, node the owner; its network is as in Create.
func (p *Pool) Join(ctx context.Context, created ShareRecord, c option.Config) (Handle, error) {
	h := Handle{ID: p.id, Share: NewID()}
	network := created.Network
	if p.outbox != nil {
		created.Network = ""
	}
	op, err := record.Put(shareKey(h), created)
	if err != nil {
		return Handle{}, err
	}
	older, err := p.ledger.hasOlderNodes(ctx)
	if err != nil {
		return Handle{}, err
	}
	var next *Record
	if older {
		rec := p.cache.rec
		next = &rec
	}
	r, err := p.withUndo(ctx, Op{Do: ReleaseHandle, Share: h.Share}, func(ctx context.Context) (store.Result, error) {
		return p.write(ctx, []store.Cond{store.Absent(op.Key)}, next, op)
	}, LocalHandle{Handle: h, Subnet: p.cache.rec.Subnet, Prefetch: c.Prefetch, Created: created.Created, Network: network})
	if err == nil && !r.OK {
		err = ErrChanged
	}
	if err != nil {
		return Handle{}, err
	}
	p.cache.setShare(h.Share, r.Rev, created)
	p.cache.replica.joined(h.Share)
	return h, nil
}

// setShare caches what was written of a share; rev is 0 if the revision is not known.
func (s *cache) setShare(name string, rev int64, rec ShareRecord) {
	if rev == 0 {
		delete(s.shares, name)
		s.stale = true
		return
	}
	s.shares[name] = share{rev: rev, node: rec.Node, network: rec.Network}
}

// Local returns what a node keeps of the handle h, as the store has it. The pool must have h, see Has.
func (p *Pool) Local(h Handle) LocalHandle {
	s := p.cache
	named := s.rec.Network
	if h.Share != "" {
		named = s.shares[h.Share].network
	}
	return LocalHandle{Handle: h, Subnet: s.Prefix, Prefetch: s.config.Prefetch, Created: s.rec.Created, Group: s.config.Group, Named: named}
}

// owner returns the node that owns a handle, "" for unknown.
func (s *cache) owner(h Handle) string {
	if h.Share == "" {
		return s.rec.Node
	}
	return s.shares[h.Share].node
}

// SetOwner makes node the owner of h, if it is not. Otherwise the removal of the former owner would release what the containers of this node
// have, and the removal of this node would not. It refuses to take a handle over from a removed node, because that ends. It returns the former
// owner, "" for unknown.
func (p *Pool) SetOwner(ctx context.Context, h Handle, node string) (former string, err error) {
	ok, err := p.Has(ctx, h) // before its owner is known
	former = p.cache.owner(h)
	if former == node || err != nil || !ok || p.cache.shares[h.Share].unreadable {
		return former, err
	}
	var conds []store.Cond
	if former != "" {
		present, lost, err := cluster.Present(ctx, p.ledger.Store, former)
		if err != nil {
			return former, err
		}
		if lost {
			return former, Refuse(ErrUnknownPool, "it was the pool of node %s, which was declared lost; create the network again", former)
		}
		conds = append(conds, present)
	}
	if h.Share != "" {
		return former, p.changeShare(ctx, h, conds, func(rec *ShareRecord) { rec.Node = node })
	}
	next := p.cache.rec
	next.Node = node
	r, err := p.write(ctx, conds, &next)
	if err == nil && !r.OK {
		err = ErrChanged
	}
	return former, err
}

// Bind records which network has a handle, in a store of this node alone. Bind loads the pool.
func (p *Pool) Bind(ctx context.Context, h Handle, network string) error {
	return Retry(ctx, func() error {
		if err := p.Load(ctx); err != nil {
			return err
		}
		if h.Share != "" {
			return p.changeShare(ctx, h, nil, func(rec *ShareRecord) { rec.Network = network })
		}
		next := p.cache.rec
		next.Network = network
		_, err := p.write(ctx, nil, &next)
		return err
	})
}

// changeShare changes the record of a share, under further conditions.
func (p *Pool) changeShare(ctx context.Context, h Handle, conds []store.Cond, change func(*ShareRecord)) error {
	kv, err := p.ledger.Store.Get(ctx, shareKey(h))
	if err != nil {
		return err
	}
	rec, err := DecodeShare(kv)
	if err != nil {
		return err
	}
	change(&rec)
	op, err := record.Put(kv.Key, rec)
	if err != nil {
		return err
	}
	r, err := p.ledger.Commit(ctx, append(conds, store.Unchanged(kv)), op)
	if err == nil && !r.OK {
		err = ErrChanged
	}
	if err == nil {
		p.cache.setShare(h.Share, r.Rev, rec)
	}
	return err
}
