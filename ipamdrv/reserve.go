package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// The reserve is what a node has to give while the shared ledger is away: addresses that it leased ahead, for nobody yet. In
// the ledger each is a lease of kind reserve, in the node's own a record beside. Drawing one turns that record, in one
// transaction, into the errand of writing down who has it now.

// reserveKey is the key of an address of the reserve in the own ledger.
func reserveKey(h handle, a netip.Addr) string { return reservePrefix + h.String() + "/" + a.String() }

// loadReserve reads one from the own ledger.
func (n *node) loadReserve(kv store.KV) error {
	h, addr, _ := strings.Cut(strings.TrimPrefix(kv.Key, reservePrefix), "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	lease, err := decodeLease(kv)
	n.keep(h, a, lease)
	return err
}

// keep notes in RAM that a is in the reserve. The caller has n.mu.
func (n *node) keep(h string, a netip.Addr, lease leaseRecord) {
	if n.reserve[h] == nil {
		n.reserve[h] = map[netip.Addr]leaseRecord{}
	}
	n.reserve[h][a] = lease
}

// draw gives an address of the reserve, because of a failure to give another; without one it is that failure. What a ledger that
// went back knows of the reserve is not certain: another node may be given the same.
func (d *Driver) draw(ctx context.Context, id string, w wish, failure error) (string, error) {
	h, ok := parseHandle(id)
	helps := d.node.cannot(failure) && !errors.Is(failure, store.ErrRolledBack) || d.node != nil && errors.Is(failure, ErrFull)
	if !ok || !w.any() || ctx.Err() != nil || !helps {
		return "", failure
	}
	a, subnet, err := d.node.take(ctx, h, w.of(h).lease)
	if err != nil || !a.IsValid() {
		return "", errors.Join(failure, err)
	}
	d.log.Info("address given from the reserve", zap.Stringer("address", a), zap.Stringer("id", h), zap.NamedError("because", failure))
	return netip.PrefixFrom(a, subnet.Bits()).String(), nil
}

// take takes the first address out of a handle's reserve; it is not valid when there is none.
func (n *node) take(ctx context.Context, h handle, lease leaseRecord) (netip.Addr, netip.Prefix, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.load(ctx); err != nil || len(n.reserve[h.String()]) == 0 {
		return netip.Addr{}, netip.Prefix{}, err
	}
	a := slices.MinFunc(slices.Collect(maps.Keys(n.reserve[h.String()])), netip.Addr.Compare)
	if err := n.takeOne(ctx, h, a, lease); err != nil {
		return netip.Addr{}, netip.Prefix{}, err
	}
	return a, n.mine[h.String()].Subnet, nil
}

// takeOne takes one. That it will be given back is promised while nobody knows of it; the promise is for the process that comes
// after this one, so that it is in the journal alone. The caller has n.mu.
func (n *node) takeOne(ctx context.Context, h handle, a netip.Addr, lease leaseRecord) error {
	back := errand{Do: doRelease, Share: h.share, Addr: a, Token: lease.Token, promise: true}
	give := errand{Do: doGive, Share: h.share, Addr: a, Token: n.reserve[h.String()][a].Token, Lease: &lease}
	promise, err := n.place(h.id, &back)
	if err == nil {
		err = n.journal.Add(promise.Key, promise.Value)
	}
	if err != nil {
		return err
	}
	op, err := n.place(h.id, &give)
	if err == nil {
		err = n.write(ctx, op, store.Del(reserveKey(h, a)))
	}
	if err != nil {
		return errors.Join(err, n.journal.Remove(back.key))
	}
	delete(n.reserve[h.String()], a)
	n.owed[h.id] = append(n.owed[h.id], give)
	if err := n.journal.Remove(back.key); err != nil {
		n.owed[h.id] = append(n.owed[h.id], back) // who asked is told of the error
		return err
	}
	return nil
}

// fulfil writes down who has an address that was drawn from the reserve. In a ledger that was restored from a backup its lease may
// not be there: then it is made. The error matches [ErrInUse] when somebody else has the address. The caller has the turn.
func (p *pool) fulfil(ctx context.Context, e errand) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	if !p.knows(handle{p.id, e.Share}) {
		return nil // it has gone with the network
	}
	kv, err := p.ledger.store.Get(ctx, leaseKey(p.id, e.Addr))
	var lease leaseRecord
	if errors.Is(err, store.ErrNotFound) {
		kv, err = store.KV{Key: leaseKey(p.id, e.Addr)}, nil
	} else if err == nil {
		lease, err = decodeLease(kv)
	}
	switch free := kv.Rev == 0 || lease.Kind == kindResting; {
	case err != nil:
		return err
	case !free && lease.Token == e.Lease.Token: // by an earlier attempt
		return nil
	case !free && lease.Token != e.Token:
		return refuse(ErrInUse, "in use %s", lease.holder(e.Addr))
	}
	op, err := put(kv.Key, e.Lease)
	if err != nil {
		return err
	}
	s := p.state
	r, err := p.write(ctx, []store.Cond{store.Unchanged(kv)}, nil, op)
	if err == nil && !r.OK {
		p.state, err = nil, errChanged
	}
	if err == nil {
		s.rests.remove(e.Addr)
		s.mark(e.Addr, (*set).add)
	}
	return err
}

// fill brings the reserves of this node's networks to their sizes.
func (d *Driver) fill(ctx context.Context) error {
	handles, err := d.node.handles(ctx)
	for _, h := range handles {
		if err == nil && d.node.lacks(h) > 0 {
			err = d.fillOne(ctx, h)
		}
	}
	return err
}

// lacks is how many addresses are missing in a handle's reserve.
func (n *node) lacks(h handle) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mine[h.String()].Reserve - len(n.reserve[h.String()])
}

// fillOne fills one reserve.
func (d *Driver) fillOne(ctx context.Context, h handle) error {
	_, p, err := d.pool(ctx, h.String())
	if errors.Is(err, ErrUnknownPool) {
		return d.node.disown(ctx, h)
	}
	if err != nil {
		return err
	}
	defer p.unlock()
	if err := d.node.recover(ctx, p, h); err != nil {
		return err
	}
	ask := d.prober(p.state.config)
	for d.node.lacks(h) > 0 {
		lease := leaseRecord{V: recordVersion, Kind: kindReserve, Since: time.Now().UTC(), Token: newID()}
		if h.share != "" {
			lease.Holders = []string{h.share}
		}
		var a netip.Addr
		err := again(ctx, func() (err error) {
			if err = p.load(ctx); err == nil {
				a, err = p.choose(ctx, lease, ask)
			}
			return err
		})
		if errors.Is(err, ErrFull) {
			return nil
		}
		if err == nil {
			err = d.node.put(ctx, h, a, lease)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put puts a leased address into the reserve.
func (n *node) put(ctx context.Context, h handle, a netip.Addr, lease leaseRecord) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	op, err := put(reserveKey(h, a), lease)
	if err == nil {
		err = n.write(ctx, op)
	}
	if err == nil {
		n.keep(h.String(), a, lease)
	}
	return err
}

// recover puts those addresses into the reserve, once, that were leased for it just before this node's process ended. What is
// drawn meanwhile is an errand, which nobody runs while the caller has the turn.
func (n *node) recover(ctx context.Context, p *pool, h handle) error {
	n.mu.Lock()
	whole := n.whole[h.String()]
	n.mu.Unlock()
	if whole {
		return nil
	}
	found := map[netip.Addr]leaseRecord{}
	err := p.ledger.leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		lease, err := decodeLease(kv)
		if err == nil && lease.Kind == kindReserve && (h.share == "" || slices.Contains(lease.Holders, h.share)) {
			found[a] = lease
		}
		return nil // one that cannot be read is somebody's
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var ops []store.Op
	for a, lease := range found {
		_, have := n.reserve[h.String()][a]
		drawn := slices.ContainsFunc(n.owed[p.id], func(e errand) bool { return e.Token == lease.Token })
		if have || drawn {
			continue
		}
		op, err := put(reserveKey(h, a), lease)
		if err != nil {
			return err
		}
		n.keep(h.String(), a, lease)
		ops = append(ops, op)
	}
	if len(ops) > 0 {
		err = n.write(ctx, ops...)
	}
	n.whole[h.String()] = err == nil
	return err
}
