package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/hw"
)

// sriov gives each container a VF of the network's PF.
type sriov struct{ *Driver }

// check finds the PF, refuses a VLAN or a device that another network has, and makes the VFs if there are none.
func (d sriov) check(ctx context.Context, c *config, others []networkRecord) (hw.ID, string, error) {
	pf, err := d.host.PF(c.netdevice)
	if err != nil {
		return "", "", fmt.Errorf("option netdevice: %w", err)
	}
	for _, n := range others {
		o, err := parseOptions(n.Options)
		if err != nil || n.Device != pf.ID {
			continue
		}
		if o.mode != modeSRIOV {
			return "", "", fmt.Errorf("option netdevice: %s is handed over whole by network %s", pf, short(n.ID))
		}
	}
	if c.vlan != nil {
		if err := vlanFree(*c.vlan, pf.ID, pf.Name, others); err != nil {
			return "", "", err
		}
	}
	unlock, err := d.locks.lock(ctx, "pf "+pf.PCI())
	if err != nil {
		return "", "", err
	}
	defer unlock()
	if err := d.checkTuning(c, pf.Netdev); err != nil {
		return "", "", err
	}
	if err := checkRange(c, pf); err != nil {
		return "", "", err
	}
	return pf.ID, pf.Name, d.share(ctx, pf, c.numVFs)
}

// checkRange refuses VFs that the PF does not have, or will not have once its VFs are made.
func checkRange(c *config, pf hw.PF) error {
	have := cmp.Or(pf.NumVFs, c.numVFs, pf.TotalVFs)
	if len(c.vfs) > 0 && slices.Max(c.vfs) >= have {
		return fmt.Errorf("option vfs: %s has vf 0 to %d, no vf %d", pf, have-1, slices.Max(c.vfs))
	}
	return nil
}

// vlanFree refuses a tag that another network has on the PF. Untagged VFs may be of several networks.
func vlanFree(vlan int, pf hw.ID, name string, others []networkRecord) error {
	for _, n := range others {
		o, err := parseOptions(n.Options)
		if err == nil && n.Device == pf && vlan > 0 && o.vlan != nil && *o.vlan == vlan {
			return fmt.Errorf("option vlan: %d is used on %s (%s) by network %s; choose another", vlan, name, pf.PCI(), short(n.ID))
		}
	}
	return nil
}

// claim chooses a VF, see choice.choose, and makes the PF's VFs if the machine was started anew.
func (d sriov) claim(ctx context.Context, n *network, loans map[hw.ID]*loan) (*loan, error) {
	pf, err := d.host.PF(n.Device.PCI())
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", short(n.ID), err)
	}
	if pf.NumVFs == 0 { // the machine was started anew
		if err := d.share(ctx, pf, 0); err != nil {
			return nil, err
		}
	}
	vfs, err := d.host.VFs(pf)
	if err != nil {
		return nil, err
	}
	states, err := d.host.VFStates(pf)
	if err != nil {
		return nil, err
	}
	vf, err := choice{pf, vfs, states, n.config, loans, d.host.Taken}.choose()
	if err != nil {
		return nil, err
	}
	snap, err := d.host.SnapshotVF(pf, vf)
	if err != nil {
		return nil, err
	}
	return &loan{loanRecord: loanRecord{
		Device: vf.ID(), Mode: modeSRIOV, PF: pf.PCI(), VF: vf.Index, Label: vf.String(), Snapshot: snap,
		Wish: wish(n.config, *snap.VF, vfMAC(pf, vf, states)), Shape: shape(n.config, snap.Link), Tune: tuneWish(n.config),
	}}, nil
}

// prepare sets the VF up through its PF, has it bound to its driver, and sees that it works.
func (d sriov) prepare(ctx context.Context, l *loan, save func() error) (hw.Netdev, error) {
	pf, vf, err := d.host.VF(l.PF, l.VF, l.Device)
	if err != nil {
		return hw.Netdev{}, err
	}
	_, state, err := d.host.SetVF(ctx, pf, vf, l.Wish)
	if err != nil {
		return hw.Netdev{}, err
	}
	if l.Snapshot.Link == nil { // it had no netdev before; as it is now it shall be again
		l.Snapshot.Link = &state
		l.Snapshot.Link.Up = false
		if own := l.Snapshot.VF.MAC; own != "" { // not the wished one, which its driver has just read
			l.Snapshot.Link.MAC = own
		}
		if err := save(); err != nil {
			return hw.Netdev{}, err
		}
	}
	dev, err := d.host.ReadyVF(ctx, pf, vf, l.Wish)
	if err != nil {
		return dev, err
	}
	if dev, err = d.host.Shape(dev.ID, l.Shape, pf.MTU); err != nil {
		return dev, err
	}
	return dev, d.tune(ctx, l, save)
}

// release puts the VF back. A VF that is gone with its PF is as good as put back.
func (d sriov) release(ctx context.Context, l *loan) error {
	return d.host.RestoreVF(ctx, l.PF, l.VF, l.Device, l.Snapshot)
}

// notReady tells whether a device could not be lent for a fault of its own, so that another may be tried.
func notReady(err error) bool { return errors.Is(err, hw.ErrNotReady) }
