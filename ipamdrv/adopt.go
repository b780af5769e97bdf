package ipamdrv

import (
	"context"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// adopt makes a handle this node's, in the ledger and here, that its engine has and that it did not make as the node that it is:
// it was made while the ledger was this node's alone, or before the node lost its own ledger and with that its identity. The
// caller has the turn on p, which knows h.
func (d *Driver) adopt(ctx context.Context, p *pool, h handle) error {
	if d.node == nil {
		return nil
	}
	err := again(ctx, func() error {
		if err := p.load(ctx); err != nil {
			return err
		}
		return p.own(ctx, h)
	})
	if err != nil || !p.knows(h) {
		return err
	}
	return d.node.adopt(ctx, made(h, p.state.prefix, p.state.config))
}

// owner is the node that has h, "" for unknown.
func (s *state) owner(h handle) string {
	if h.share == "" {
		return s.rec.Node
	}
	return s.shares[h.share].node
}

// own writes down that h is this node's, if that is not what the record says. Otherwise everything would end that its containers
// have when the node is declared lost that had it, and nothing when this one is. What a lost node had ends: it cannot be taken
// over.
func (p *pool) own(ctx context.Context, h handle) error {
	id, err := p.node.id(ctx)
	owner := p.state.owner(h)
	if err != nil || owner == id || !p.knows(h) || p.state.shares[h.share].strange {
		return err
	}
	var conds []store.Cond
	if owner != "" {
		present, lost, err := cluster.Present(ctx, p.ledger.store, owner)
		if err != nil {
			return err
		}
		if lost {
			return refuse(ErrUnknownPool, "it was the pool of node %s, which was declared lost; create the network again", owner)
		}
		conds = append(conds, present)
	}
	if h.share != "" {
		return p.changeShare(ctx, h, conds, func(rec *shareRecord) { rec.Node = id })
	}
	next := p.state.rec
	next.Node = id
	r, err := p.write(ctx, conds, &next)
	if err == nil && !r.OK {
		err = errChanged
	}
	return err
}

// changeShare changes the record of a share, under more conditions.
func (p *pool) changeShare(ctx context.Context, h handle, conds []store.Cond, change func(*shareRecord)) error {
	kv, err := p.ledger.store.Get(ctx, shareKey(h))
	if err != nil {
		return err
	}
	var rec shareRecord
	if err := decode(kv, &rec, &rec.V); err != nil {
		return err
	}
	change(&rec)
	op, err := put(kv.Key, rec)
	if err != nil {
		return err
	}
	r, err := p.ledger.commit(ctx, append(conds, store.Unchanged(kv)), op)
	if err == nil && !r.OK {
		err = errChanged
	}
	if err == nil && p.state != nil {
		p.state.shares[h.share] = share{node: rec.Node, network: rec.Network}
	}
	return err
}
