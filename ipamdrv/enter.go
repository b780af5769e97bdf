package ipamdrv

import (
	"context"
	"errors"

	"github.com/mellanox/passthrough/store"
)

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
	var ops []store.Op
	var failed error
	add := func(key string, record any) {
		op, err := put(key, record)
		ops, failed = append(ops, op), errors.Join(failed, err)
	}
	rec := w.rec
	if gw := w.config.gateway.of(rec.Subnet); rec.Subnet.Contains(gw) {
		rec.Gateway = gw
	}
	add(poolKey(h.id), rec)
	if rec.Gateway.IsValid() {
		add(leaseKey(h.id, rec.Gateway), leaseRecord{V: recordVersion, Kind: kindGateway, Since: rec.Created})
	}
	if w.share != "" {
		h.share = newID()
		ops = append(ops, store.Put(nameKey(w.share, w.v6), []byte(h.id)))
		add(shareKey(h), shareRecord{V: recordVersion, Created: rec.Created})
	}
	if rec.Carved {
		ops = append(ops, store.Put(carvedKey(rec.Subnet), []byte(h.id)))
	}
	if failed != nil {
		return handle{}, failed
	}
	r, err := d.ledger.commit(ctx, append(conds, store.Absent(poolKey(h.id))), ops...)
	if err == nil && !r.OK {
		err = errChanged
	}
	return h, err
}
