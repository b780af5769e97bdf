package netdrv

import (
	"cmp"
	"context"
	"errors"

	"github.com/mellanox/passthrough/netdrv/alloc"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// sriov gives each container a VF of one of the network's PFs.
type sriov struct{ *Driver }

// claim chooses a VF, see choice.choose.
func (d sriov) claim(ctx context.Context, n *network, loans alloc.Set) (*alloc.Allocation, error) {
	offers, gone, err := d.offers(ctx, n)
	if err != nil {
		return nil, err
	}
	chosen, err := choice{offers, gone, n.options, n.prefer, loans, d.host.Taken}.choose()
	if err != nil {
		return nil, err
	}
	return d.borrow(n.options, chosen)
}

// borrow is the allocation of a VF that has been chosen.
func (d sriov) borrow(c *option.Network, chosen candidate) (*alloc.Allocation, error) {
	pf, vf := chosen.pf, chosen.vf
	snap, err := d.host.SnapshotVF(pf, vf)
	if err != nil {
		return nil, err
	}
	w := c.VFSpec(pf, withStableGUIDs(pf, vf, *snap.VF), chosen.mac())
	if err := d.host.CheckVFSupport(pf, w); err != nil {
		return nil, err
	}
	return &alloc.Allocation{Record: alloc.Record{
		Device: vf.ID(), Mode: option.ModeSRIOV, PF: pf.PCI(), VF: vf.Index, Label: vf.String(), Snapshot: snap,
		VFSpec: w, LinkSpec: c.LinkSpec(snap.Link), Tuning: c.TuningSpec(),
	}}, nil
}

// prepare sets the VF up through its PF, has it bound to its driver, and sees that it works.
func (d sriov) prepare(ctx context.Context, l *alloc.Allocation, save func() error) (hw.Netdev, error) {
	pf, vf, err := d.host.VF(l.PF, l.VF, l.Device)
	if err != nil {
		return hw.Netdev{}, err
	}
	dev, err := d.host.SetVF(ctx, pf, vf, l.VFSpec)
	if err != nil {
		return hw.Netdev{}, err
	}
	if l.Snapshot.Link == nil { // it had no netdev before; as it is now it shall be again
		l.Snapshot.Complete(dev)
		if err := save(); err != nil {
			return hw.Netdev{}, err
		}
	}
	dev, err = d.host.ReadyVF(ctx, pf, vf, l.VFSpec)
	if err != nil {
		return dev, err
	}
	if dev, err = d.host.SetLink(dev, l.LinkSpec, pf.MTU); err != nil {
		return dev, err
	}
	return dev, d.tune(ctx, l, save)
}

// release puts the VF back. A VF that is gone with its PF is as good as put back.
func (d sriov) release(ctx context.Context, l *alloc.Allocation) error {
	return d.host.RestoreVF(ctx, l.PF, l.VF, l.Device, l.Snapshot)
}

// notReady tells whether a device could not be lent for a fault of its own, so that another may be tried.
func notReady(err error) bool { return errors.Is(err, hw.ErrDeviceFault) }

// withStableGUIDs returns what a PF has set for a VF, with stable GUIDs where the VF has none: one that the plugin did not make may
// have none.
func withStableGUIDs(pf hw.PF, vf hw.VF, s hw.VFState) hw.VFState {
	own := hw.StableGUID(pf, vf.Index)
	s.NodeGUID, s.PortGUID = cmp.Or(s.NodeGUID, own), cmp.Or(s.PortGUID, own)
	return s
}
