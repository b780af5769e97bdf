package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// requestAddress gives an address of the pool, of its group, or of the reserve.
func (d *Driver) requestAddress(ctx context.Context, id string, w wish) (string, error) {
	if away := d.node.isAway(); away != nil {
		if got, err := d.draw(ctx, id, w, away); err == nil {
			return got, nil
		}
	}
	h, p, err := d.pool(ctx, id)
	if err != nil {
		d.node.noteAway(err)
		return d.draw(ctx, id, w, fmt.Errorf("pool %.80q: request address: %w", id, err))
	}
	s := p.state
	var got string
	err = p.finish(func() (err error) {
		got, err = d.grant(ctx, p, w.of(h))
		return err
	})
	if w.any() && errors.Is(err, ErrFull) && s.overflow != "" {
		got, err = d.overflow(ctx, p.id, s, w, err)
	}
	if err != nil {
		hope := d.hope(ctx, h, w.addr, err)
		d.node.noteAway(err)
		return d.draw(ctx, id, w, fmt.Errorf("pool %s: request %s: %w%s", s.prefix, w, err, hope))
	}
	return got, nil
}

// grant gives what is wished for from p, on which the caller has the turn, in the form that the engine wants.
func (d *Driver) grant(ctx context.Context, p *pool, w wish) (string, error) {
	s := p.state.subnet
	var a netip.Addr
	var given bool
	ask := d.prober(p.state.config)
	try := func() (err error) {
		if err = p.load(ctx); err == nil {
			a, given, err = w.grant(ctx, p, ask)
		}
		return err
	}
	err := again(ctx, try)
	if d.node != nil && (errors.Is(err, ErrFull) || errors.Is(err, ErrInUse)) {
		p.state = nil
		err = again(ctx, try)
	}
	if err != nil {
		return "", err
	}
	if !given {
		return s.cidr(a), nil
	}
	return s.cidr(a), d.answerable(ctx, func(ctx context.Context) error {
		_, err := p.end(ctx, a, ending{share: w.share, at: time.Now()})
		if d.node.cannot(err) {
			_, err = d.node.owe(ctx, p.id, errand{Do: doRelease, Share: w.share, Addr: a})
		}
		return err
	})
}
