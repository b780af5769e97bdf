package ipamdrv

import (
	"context"
	"errors"
	"maps"

	"github.com/mellanox/passthrough/store"
)

// joinNamed joins the pool that has the name. When there is none the handle is empty, and free the condition that nobody
// makes one at this moment.
func (d *Driver) joinNamed(ctx context.Context, w *poolWish) (h handle, free store.Cond, err error) {
	kv, err := d.ledger.store.Get(ctx, nameKey(w.share, w.v6))
	if errors.Is(err, store.ErrNotFound) {
		return handle{}, store.Absent(nameKey(w.share, w.v6)), nil
	}
	if err != nil {
		return handle{}, store.Cond{}, err
	}
	h, err = d.join(ctx, string(kv.Value), w)
	if errors.Is(err, store.ErrNotFound) { // it could not be read when it was removed, so that its name stayed
		return handle{}, store.Unchanged(kv), nil
	}
	return h, store.Cond{}, err
}

// join gives a request a share of the pool id. The error matches [store.ErrNotFound] when it is not there any more.
func (d *Driver) join(ctx context.Context, id string, w *poolWish) (handle, error) {
	p := d.entry(id)
	if err := p.lock(ctx); err != nil {
		return handle{}, err
	}
	defer p.unlock()
	if err := p.load(ctx); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			d.forget(p)
		}
		return handle{}, err
	}
	if err := d.checkShare(p.state.rec, w); err != nil {
		return handle{}, err
	}
	h := handle{id: id, share: newID()}
	node, err := d.node.id(ctx)
	if err != nil {
		return handle{}, err
	}
	op, err := put(shareKey(h), shareRecord{V: recordVersion, Created: w.rec.Created, Node: node})
	if err != nil {
		return handle{}, err
	}
	next := p.state.rec // as it is, but written: who removes the pool at this moment must notice
	r, err := p.surely(ctx, errand{Do: doLeave, Share: h.share}, func(ctx context.Context) (store.Result, error) {
		return p.write(ctx, []store.Cond{store.Absent(op.Key)}, &next, op)
	}, made(h, next.Subnet, w.config))
	if err == nil && !r.OK {
		err = errChanged
	}
	if err != nil {
		return handle{}, err
	}
	if p.state != nil {
		p.state.shares[h.share] = share{node: node}
	}
	w.rec.Subnet = next.Subnet
	return h, nil
}

// checkShare refuses a request for a share of a pool that is not as the request says.
func (d *Driver) checkShare(have poolRecord, w *poolWish) error {
	const same = "networks that share a pool must say the same of it"
	switch {
	case !w.rec.Subnet.IsValid():
		if taken, err := d.onHost(have.Subnet); err != nil || taken.IsValid() {
			return errors.Join(err, refuse(ErrInvalid, "pool %q has subnet %s, which the host has, too (%s); if that is meant, "+
				"give it with --subnet", w.share, have.Subnet, taken))
		}
	case w.rec.Subnet != have.Subnet:
		return refuse(ErrInvalid, "pool %q has subnet %s; %s", w.share, have.Subnet, same)
	}
	if w.rec.Range != have.Range {
		is := "none"
		if have.Range.IsValid() {
			is = have.Range.String()
		}
		return refuse(ErrInvalid, "pool %q has ip-range %s; %s", w.share, is, same)
	}
	for _, o := range options {
		if is := have.Options[o.Name]; is != w.rec.Options[o.Name] {
			if is == "" {
				is = "the default"
			}
			return refuse(ErrInvalid, "pool %q has %s for option %s; %s", w.share, is, o.Name, same)
		}
	}
	if !maps.Equal(have.Options, w.rec.Options) {
		return refuse(ErrInvalid, "pool %q has other options; %s", w.share, same)
	}
	return nil
}
