package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// bonded gives each container a bond of VFs, one of each of the network's PFs. The kernel keeps a bond in its namespace,
// so it stays in the host with its ports, and the container gets the one child that it has, a macvlan in mode passthru:
// with the bond's own MAC, and nothing in between. All ports have that MAC, so that none need be trusted with another.
//
// The child's allocation is the endpoint's. Those of the VFs are part of it: they end when it does.
type bonded struct{ sriov }

// claim chooses a VF of each PF. PFs that are gone are left out: a bond is there for just that.
func (d bonded) claim(ctx context.Context, n *network, loans alloc.Set) (*alloc.Allocation, error) {
	offers, gone, err := d.offers(ctx, n)
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 {
		d.log.Warn("bond is made without some pfs", zap.String("network", ledger.ShortID(n.ID)), zap.Errors("gone", gone))
	}
	c := *n.options
	var parts []*alloc.Allocation
	for _, o := range offers {
		chosen, err := choice{[]offer{o}, nil, &c, n.prefer, loans, d.host.Taken}.choose()
		if err != nil {
			return nil, err
		}
		c.MAC = cmp.Or(c.MAC, chosen.mac())
		part, err := d.borrow(&c, chosen)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return bondOf(&c, parts), nil
}

// bondOf is the allocation of a bond with its parts. It is known by its first port, which can be in no other.
func bondOf(c *option.Network, parts []*alloc.Allocation) *alloc.Allocation {
	key := string(parts[0].Device)
	spec := hw.BondSpec{Key: "bond-" + key, Mode: c.Bond, MAC: c.MAC}
	if c.MTU != nil {
		spec.MTU = *c.MTU
	}
	child := hw.ChildSpec{Key: "child-" + key, Parent: hw.MadeID(spec.Key), Kind: hw.Macvlan, Mode: option.Passthru, MAC: c.MAC}
	l := &alloc.Allocation{Record: alloc.Record{Device: hw.MadeID(child.Key), Mode: modeBond, Bond: &spec, Child: &child, LinkSpec: c.LinkSpec(nil)}}
	var labels []string
	for _, p := range parts {
		p.PartOf = l.Device
		spec.Ports = append(spec.Ports, p.Device)
		labels = append(labels, p.Label)
	}
	l.Label, l.Parts = fmt.Sprintf("bond of %s", strings.Join(labels, " and ")), parts
	return l
}

// prepare makes the VFs ready, then the bond and its child.
func (d bonded) prepare(ctx context.Context, l *alloc.Allocation, _ func() error) (hw.Netdev, error) {
	for _, p := range l.Parts {
		save := func() error { return d.allocs.Advance(ctx, p, alloc.Claimed) }
		if _, err := d.sriov.prepare(ctx, p, save); err != nil {
			p.Faulty = notReady(err) && ctx.Err() == nil
			return hw.Netdev{}, err
		}
	}
	if _, err := d.host.MakeBond(*l.Bond); err != nil {
		return hw.Netdev{}, err
	}
	dev, err := d.host.MakeChild(ctx, *l.Child)
	if err != nil {
		return dev, err
	}
	return d.host.SetLink(dev, l.LinkSpec, 0)
}

// release removes the bond, and with it its child, wherever that is.
func (d bonded) release(_ context.Context, l *alloc.Allocation) error {
	return errors.Join(d.host.RemoveChild(l.Device, hw.Macvlan), d.host.RemoveBond(hw.MadeID(l.Bond.Key)))
}
