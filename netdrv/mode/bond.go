package mode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// bond gives each container a bond of VFs, one of each of the network's PFs. The kernel keeps a bond in its namespace, so the bond stays
// in the host with its ports. The container gets the bond's only child, a macvlan in mode passthru with the bond's own MAC. All
// ports have that MAC, so none of them needs to be trusted with another.
//
// The child's allocation is the endpoint's. Those of the VFs are part of it: they end when it does.
type bond struct {
	vfs  sriov
	host *hw.Host
	log  *zap.Logger
}

// Check is that of sriov.
func (m bond) Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error) {
	return m.vfs.Check(ctx, o, others)
}

// Make is that of sriov.
func (m bond) Make(ctx context.Context, o *option.Network, p *Plan) ([]ledger.Device, error) {
	return m.vfs.Make(ctx, o, p)
}

// Competes: containers take VFs from each other.
func (m bond) Competes(r *Request) bool { return m.vfs.Competes(r) }

// Claim selects a VF of each PF. PFs that are gone are left out: that is what a bond is for.
func (m bond) Claim(ctx context.Context, r *Request) (*alloc.Allocation, error) {
	s, err := m.vfs.selector(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(s.Missing) > 0 {
		m.log.Warn("bond is made without some pfs", zap.String("network", ledger.ShortID(r.Network.ID)), zap.Errors("gone", s.Missing))
	}
	pfs := s.PFs
	s.Missing = nil
	var parts []*alloc.Allocation
	for _, pf := range pfs {
		s.PFs = []vfpool.PF{pf}
		chosen, err := s.Select()
		if err != nil {
			return nil, err
		}
		s.Want.MAC = cmp.Or(s.Want.MAC, chosen.MAC())
		part, err := m.vfs.allocate(ctx, r, &s.Want, chosen, s.Held)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return bondOf(r.Options.Bond, &s.Want, parts), nil
}

// bondOf returns the allocation of a bond with its parts. Its key is its first port, which can be in no other bond.
func bondOf(mode string, o *option.Container, parts []*alloc.Allocation) *alloc.Allocation {
	key := string(parts[0].Device)
	spec := hw.BondSpec{Key: "bond-" + key, Mode: mode, MAC: o.MAC}
	if o.MTU != nil {
		spec.MTU = *o.MTU
	}
	child := hw.ChildSpec{Key: "child-" + key, Parent: hw.MadeID(spec.Key), Kind: hw.Macvlan, Mode: option.Passthru, MAC: o.MAC}
	a := &alloc.Allocation{Record: alloc.Record{Device: hw.MadeID(child.Key), Mode: bondName, Bond: &spec, Child: &child,
		LinkSpec: o.LinkSpec(nil)}}
	var labels []string
	for _, p := range parts {
		p.PartOf = a.Device
		spec.Ports = append(spec.Ports, p.Device)
		labels = append(labels, p.Label)
	}
	a.Label, a.Parts = fmt.Sprintf("bond of %s", strings.Join(labels, " and ")), parts
	return a
}

// Prepare sets the VFs up, then creates the bond and its child.
func (m bond) Prepare(ctx context.Context, a *alloc.Allocation, save Save) (hw.Netdev, error) {
	for _, p := range a.Parts {
		if _, err := m.vfs.Prepare(ctx, p, save); err != nil {
			p.Faulty = errors.Is(err, hw.ErrDeviceFault) && ctx.Err() == nil
			return hw.Netdev{}, err
		}
	}
	if _, err := m.host.CreateBond(*a.Bond); err != nil {
		return hw.Netdev{}, err
	}
	dev, err := m.host.CreateChild(ctx, *a.Child)
	if err != nil {
		return dev, err
	}
	return m.host.SetLink(dev, a.LinkSpec, 0)
}

// Release removes the bond and its child, even if that is in a container. The VFs are released by themselves.
func (m bond) Release(_ context.Context, a *alloc.Allocation) error {
	return errors.Join(m.host.RemoveChild(a.Device, hw.Macvlan), m.host.RemoveBond(hw.MadeID(a.Bond.Key)))
}
