package netdrv

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/mellanox/passthrough/netdrv/ledger"
)

// Use is one network, and the addresses that its endpoints have.
type Use struct {
	Network string // its ID
	Addrs   []netip.Addr
	// EndsBy has those of Addrs whose endpoint the engine seems to have forgotten, with the time by which it is removed if nothing changes.
	EndsBy map[netip.Addr]time.Time
}

// Uses lists the addresses that the endpoints of all networks have, for the IPAM driver. An endpoint whose addresses are not known is an
// error: its address must not count as free.
func (d *Driver) Uses(ctx context.Context) ([]Use, error) {
	networks, err := ledger.List[ledger.Network](ctx, d.endpoints.store, ledger.NetworkPrefix)
	if err != nil {
		return nil, err
	}
	var all []Use
	for _, n := range networks {
		u, err := d.usesOf(ctx, n.Rec.ID)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", ledger.ShortID(n.Rec.ID), err)
		}
		all = append(all, u)
	}
	return all, nil
}

// usesOf lists the addresses of one network.
func (d *Driver) usesOf(ctx context.Context, nid string) (Use, error) {
	u := Use{Network: nid, EndsBy: map[netip.Addr]time.Time{}}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, d.endpoints.store, ledger.EndpointsOf(nid))
	if err != nil {
		return Use{}, err
	}
	for _, e := range endpoints {
		if len(e.Rec.Addrs) == 0 && (e.Rec.IPv4 || e.Rec.IPv6) {
			return Use{}, fmt.Errorf("endpoint %s: its addresses are not known", ledger.ShortID(e.Rec.ID))
		}
		for _, text := range e.Rec.Addrs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return Use{}, fmt.Errorf("endpoint %s: %w", ledger.ShortID(e.Rec.ID), err)
			}
			u.Addrs = append(u.Addrs, p.Addr())
			if by := d.engine.EndsBy(nid, e.Rec.ID); !by.IsZero() {
				u.EndsBy[p.Addr()] = by
			}
		}
	}
	return u, nil
}
