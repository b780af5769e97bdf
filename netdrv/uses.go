package netdrv

import (
	"context"
	"fmt"
	"net/netip"

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
	networks, err := list[networkRecord](ctx, d.store, networkPrefix)
	if err != nil {
		return nil, err
	}
	var all []Use
	for _, n := range networks {
		u, err := d.use(ctx, n.rec.ID)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", short(n.rec.ID), err)
		}
		all = append(all, u)
	}
	return all, nil
}

// use is what one network uses.
func (d *Driver) use(ctx context.Context, nid string) (Use, error) {
	u := Use{Network: nid}
	endpoints, err := list[endpointRecord](ctx, d.store, endpointPrefix+nid+"/")
	if err != nil {
		return Use{}, err
	}
	for _, e := range endpoints {
		if len(e.rec.Addrs) == 0 && (e.rec.IPv4 || e.rec.IPv6) {
			return Use{}, fmt.Errorf("endpoint %s: its addresses are not known", short(e.rec.ID))
		}
		for _, text := range e.rec.Addrs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return Use{}, fmt.Errorf("endpoint %s: %w", short(e.rec.ID), err)
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
