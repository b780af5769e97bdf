package ipamdrv

import (
	"context"
	"errors"

	"github.com/mellanox/passthrough/store"
)

// enterInTurn makes or joins a pool after everybody who came before: of many that look for one at once, most would find it
// taken, and look again.
func (d *Driver) enterInTurn(ctx context.Context, w *poolWish) (h handle, err error) {
	if err = d.entering.lock(ctx); err != nil {
		return handle{}, err
	}
	defer d.entering.unlock()
	err = again(ctx, func() (err error) {
		h, err = d.enter(ctx, w)
		return err
	})
	return h, err
}

// enter makes a pool, or joins the one that has the name. Afterwards the wish has the pool's subnet.
func (d *Driver) enter(ctx context.Context, w *poolWish) (handle, error) {
	var conds []store.Cond
	if w.share != "" {
		h, free, err := d.joinNamed(ctx, w)
		if err != nil || h.id != "" {
			return h, err
		}
		conds = append(conds, free)
	}
	if err := d.checkGroup(ctx, w); err != nil {
		return handle{}, err
	}
	if w.rec.Subnet.IsValid() {
		return d.create(ctx, w, conds)
	}
	subnet, free, err := d.carve(ctx, w.v6)
	if err != nil {
		return handle{}, err
	}
	carved := *w // the next try may find another
	carved.rec.Subnet, carved.rec.Carved = subnet, true
	if err := carved.check(); err != nil {
		return handle{}, err
	}
	h, err := d.create(ctx, &carved, append(conds, free))
	if err == nil {
		*w = carved
	}
	return h, err
}

// create writes all records of a new pool in one transaction.
func (d *Driver) create(ctx context.Context, w *poolWish, conds []store.Cond) (handle, error) {
	h := handle{id: newID()}
	if w.share != "" {
		h.share = newID()
	}
	ops, err := d.creation(ctx, w, h)
	if err != nil {
		return handle{}, err
	}
	p := d.entry(h.id)
	if err := p.lock(ctx); err != nil { // nobody else knows the pool
		return handle{}, err
	}
	defer p.unlock()
	r, err := p.surely(ctx, errand{Do: doLeave, Share: h.share}, func(ctx context.Context) (store.Result, error) {
		return d.ledger.commit(ctx, append(conds, store.Absent(poolKey(h.id))), ops...)
	}, made(h, w.rec.Subnet, w.config))
	if err == nil && !r.OK {
		err = errChanged
	}
	if err != nil {
		d.forget(p)
	}
	return h, err
}

// creation is what to write for a new pool.
func (d *Driver) creation(ctx context.Context, w *poolWish, h handle) (ops []store.Op, failed error) {
	add := func(key string, record any) {
		op, err := put(key, record)
		ops, failed = append(ops, op), errors.Join(failed, err)
	}
	node, err := d.node.id(ctx)
	if err != nil {
		return nil, err
	}
	rec := w.rec
	if gw := w.config.gateway.of(rec.Subnet); rec.Subnet.Contains(gw) {
		rec.Gateway = gw
	}
	if w.share == "" {
		rec.Node = node
	}
	add(poolKey(h.id), rec)
	if rec.Gateway.IsValid() {
		add(leaseKey(h.id, rec.Gateway), leaseRecord{V: recordVersion, Kind: kindGateway, Since: rec.Created})
	}
	if w.share != "" {
		ops = append(ops, store.Put(nameKey(w.share, w.v6), []byte(h.id)))
		add(shareKey(h), shareRecord{V: recordVersion, Created: rec.Created, Node: node})
	}
	if rec.Carved {
		ops = append(ops, store.Put(carvedKey(rec.Subnet), []byte(h.id)))
	}
	return ops, failed
}
