package ipamdrv

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/store"
)

// poolWish is a request for a pool.
type poolWish struct {
	rec poolRecord // its subnet is not valid before one is found, when the request names none
	config
	v6 bool
}

// newPoolWish checks a request for a pool.
func newPoolWish(r *ipam.RequestPoolRequest) (*poolWish, error) {
	w := &poolWish{rec: poolRecord{V: recordVersion, Created: time.Now().UTC()}, v6: r.V6}
	var err error
	if w.rec.Options, err = userOptions(r.Options); err != nil {
		return nil, err
	}
	if w.config, err = parseOptions(w.rec.Options); err != nil {
		return nil, err
	}
	if r.Pool == "" {
		switch {
		case r.SubPool != "":
			return nil, refuse(ErrInvalid, "ip-range %.64q: needs a --subnet", r.SubPool)
		case w.slaac && w.v6:
			return nil, refuse(ErrInvalid, "ipam option slaac: needs --subnet %s", linkLocal)
		}
		return w, nil
	}
	if w.rec.Subnet, err = parsePrefix("subnet", r.Pool); err != nil {
		return nil, err
	}
	w.v6 = w.rec.Subnet.Addr().Is6()
	if r.SubPool != "" {
		if w.rec.Range, err = parsePrefix("ip-range", r.SubPool); err != nil {
			return nil, err
		}
	}
	return w, w.check()
}

// linkLocal is the subnet of IPv6 addresses that mean something on one segment only (RFC 4291 2.5.6).
var linkLocal = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80}), 64)

// check refuses a subnet that does not go with what else is asked for.
func (w *poolWish) check() error {
	rec := w.rec
	if rec.Range.IsValid() {
		if err := checkInside(rec.Range, rec.Subnet); err != nil {
			return err
		}
	}
	s := newSubnet(rec.Subnet, rec.Range, nil)
	if s.lo > s.hi {
		return refuse(ErrInvalid, "ip-range %s: its one address is %s of %s", rec.Range, s.reserved(rec.Range.Addr()), rec.Subnet)
	}
	if w.slaac && w.v6 && rec.Subnet != linkLocal {
		return refuse(ErrInvalid, "ipam option slaac: the IPv6 subnet must be %s", linkLocal)
	}
	if gw := w.config.gateway.of(rec.Subnet); rec.Subnet.Contains(gw) && s.reserved(gw) != "" {
		return refuse(ErrInvalid, "ipam option gateway: %s is %s", gw, s.reserved(gw))
	}
	return nil
}

// checkInside refuses an ip-range that is not inside the subnet.
func checkInside(within, subnet netip.Prefix) error {
	if !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return refuse(ErrInvalid, "ip-range %s: must be inside subnet %s", within, subnet)
	}
	return nil
}

// String names the wish in errors.
func (w *poolWish) String() string {
	if w.rec.Subnet.IsValid() {
		return "pool " + w.rec.Subnet.String() + ": request"
	}
	return "request pool"
}

// gateway is the one that the options name, with a prefix length as the engine wants it; not valid for none.
func (w *poolWish) gateway() netip.Prefix {
	gw := w.config.gateway.of(w.rec.Subnet)
	if w.rec.Subnet.Contains(gw) {
		return netip.PrefixFrom(gw, w.rec.Subnet.Bits())
	}
	return netip.PrefixFrom(gw, gw.BitLen())
}

// enter makes a pool, or joins the one that has the name. Afterwards the wish has the pool's subnet.
func (d *Driver) enter(ctx context.Context, w *poolWish) (handle, error) {
	var stale store.Cond
	if w.share != "" {
		stale = store.Absent(nameKey(w.share, w.v6))
		kv, err := d.ledger.store.Get(ctx, stale.Key)
		if err == nil {
			h, err := d.join(ctx, string(kv.Value), w)
			if !errors.Is(err, store.ErrNotFound) {
				return h, err
			}
			stale = store.Unchanged(kv) // a pool that could not be read when it was removed
		} else if !errors.Is(err, store.ErrNotFound) {
			return handle{}, err
		}
	}
	if err := d.checkGroup(ctx, w); err != nil {
		return handle{}, err
	}
	conds := []store.Cond{stale}
	if w.share == "" {
		conds = nil
	}
	if !w.rec.Subnet.IsValid() {
		carved, cond, err := d.carve(ctx, w.v6)
		if err != nil {
			return handle{}, err
		}
		try := *w
		try.rec.Subnet, try.rec.Carved = carved, true
		if err := try.check(); err != nil {
			return handle{}, err
		}
		h, err := d.create(ctx, &try, append(conds, cond))
		if err == nil {
			*w = try
		}
		return h, err
	}
	return d.create(ctx, w, conds)
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
	op, err := put(shareKey(h), shareRecord{V: recordVersion, Created: w.rec.Created})
	if err != nil {
		return handle{}, err
	}
	next := p.state.rec // as it is, but written: who removes the pool at this moment must notice
	r, err := p.write(ctx, []store.Cond{store.Absent(op.Key)}, &next, op)
	if err == nil && !r.OK {
		err = errChanged
	}
	if err != nil {
		return handle{}, err
	}
	if p.state != nil {
		p.state.shares[h.share] = true
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
