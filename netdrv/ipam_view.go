package netdrv

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/mellanox/passthrough/netdrv/ledger"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// Use is one network, and the addresses that its endpoints have.
type Use struct {
	Network string // its ID
	Addrs   []netip.Addr
}

// Uses lists what all networks use, for whoever gives addresses and wants to know which of them are in use. An endpoint of
// which that is not known is an error: nobody must take its address for one that nobody has.
func (d *Driver) Uses(ctx context.Context) ([]Use, error) {
	networks, err := ledger.List[ledger.Network](ctx, d.store, ledger.NetworkPrefix)
	if err != nil {
		return nil, err
	}
	var all []Use
	for _, n := range networks {
		u, err := d.use(ctx, n.Rec.ID)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", ledger.ShortID(n.Rec.ID), err)
		}
		all = append(all, u)
	}
	return all, nil
}

// use is what one network uses.
func (d *Driver) use(ctx context.Context, nid string) (Use, error) {
	u := Use{Network: nid}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, d.store, ledger.EndpointsOf(nid))
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
		}
	}
	return u, nil
}

// tellPools tells the IPAM driver, which is never told of networks, which pools the network got that was just made.
func (d *Driver) tellPools(ctx context.Context, r *plugin.CreateNetworkRequest) {
	if d.gotPool == nil {
		return
	}
	for _, family := range [][]*plugin.IPAMData{r.IPv4Data, r.IPv6Data} {
		for _, p := range family {
			if p != nil && p.Pool != "" {
				d.gotPool(ctx, r.NetworkID, p.AddressSpace, p.Pool)
			}
		}
	}
}
