package mode

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// checkReported refuses options for VFs that the driver of a PF with VFs is known not to support, and an MTU that they cannot have.
func (m sriov) checkReported(ctx context.Context, o *option.Network, pf hw.PF) error {
	states, err := m.host.CheckVFsReported(ctx, pf)
	if err != nil {
		return err
	}
	if err := m.host.CheckVFSupport(pf, states, o.VFSpec(pf, hw.VFState{}, "")); err != nil {
		return err
	}
	return m.checkSizes(o, pf)
}

// tryAll refuses options for VFs that a driver refuses when it is tried, on one of its PFs. What the driver supports cannot be asked for, and
// can be found out only once there are VFs.
func (m sriov) tryAll(ctx context.Context, o *option.Network, pfs []hw.PF) error {
	tried := map[string]bool{} // by driver
	for _, pf := range pfs {
		if tried[pf.Driver] {
			continue
		}
		var err error
		if tried[pf.Driver], err = m.tryOn(ctx, o, pf.PCI()); err != nil {
			return err
		}
	}
	return nil
}

// checkSizes refuses an MTU, or a size of packets, that a PF's VFs cannot have.
func (m sriov) checkSizes(o *option.Network, pf hw.PF) error {
	if o.MTU == nil && o.GSO == nil && o.GSOIPv4 == nil {
		return nil
	}
	vfs, err := m.host.VFs(pf)
	if err != nil {
		return err
	}
	for _, vf := range vfs {
		if err := checkGSO(&o.Container, vf.Netdev, vf.String()); err != nil {
			return err
		}
	}
	if o.MTU == nil {
		return nil
	}
	if pf.MaxMTU > 0 && *o.MTU > pf.MaxMTU {
		return fmt.Errorf("option mtu: %d is above %d, the most that %s with driver %s can have", *o.MTU, pf.MaxMTU, pf, pf.Driver)
	}
	for _, vf := range vfs {
		if most := vf.Netdev.MaxMTU; most > 0 && *o.MTU > most {
			return fmt.Errorf("option mtu: %d is above %d, the most that %s with driver %s can have", *o.MTU, most, vf, vf.Driver)
		}
	}
	if *o.MTU > pf.MTU {
		return fmt.Errorf("option mtu: %d is above %d, which %s has, and a vf cannot exceed its pf; raise that first: ip link set %s mtu %d",
			*o.MTU, pf.MTU, pf, pf.Name, *o.MTU)
	}
	return nil
}

// tryOn sets what a network's options require on a free VF of a PF, and restores it. It returns tried if there was nothing to try, or a VF
// to try it on. The allocation of the VF, which belongs to no endpoint, has it restored after a crash.
func (m sriov) tryOn(ctx context.Context, o *option.Network, pci string) (tried bool, _ error) {
	unlock, err := m.pool.Locks.Lock(ctx, vfpool.LockName(pci))
	if err != nil {
		return false, err
	}
	defer unlock()
	pf, err := m.host.PF(pci)
	if err != nil || !pf.Up { // some drivers set nothing then
		return false, err
	}
	spec := requiredOnly(o.VFSpec(pf, hw.VFState{}, ""), pf)
	if len(spec.Policies) == 0 {
		return true, nil
	}
	vf, err := m.freeVF(ctx, o, pf)
	if err != nil || vf.PCI == "" {
		return false, err
	}
	unlockVF, ok := m.pool.Locks.TryLock(alloc.Key(vf.ID()))
	if !ok {
		return false, nil
	}
	defer unlockVF()
	snap, err := m.host.SnapshotVF(pf, vf)
	if err != nil {
		return false, err
	}
	spec.MAC = snap.VF.MAC
	a := &alloc.Allocation{Record: alloc.Record{Device: vf.ID(), Mode: option.ModeSRIOV, PF: pf.PCI(), VF: vf.Index, Label: vf.String(),
		Snapshot: snap, VFSpec: spec}}
	if taken, err := m.allocations.Reserve(ctx, a); taken || err != nil {
		return false, err
	}
	attr, refused := m.host.TryVF(ctx, pf, vf, spec)
	if errors.Is(refused, hw.ErrUnsupported) || errors.Is(refused, hw.ErrInvalid) {
		refused = fmt.Errorf("option %s: %w; leave it out, or use a nic that can", optionOf(o, attr), refused)
	} else {
		refused = nil // busy, or anything else that says nothing about the next time
	}
	return true, errors.Join(refused, m.endTrial(ctx, a, pf, vf))
}

// endTrial restores a VF that was tried, and ends its allocation. If that fails the reconciler goes on with it.
func (m sriov) endTrial(ctx context.Context, a *alloc.Allocation, pf hw.PF, vf hw.VF) error {
	ctx = context.WithoutCancel(ctx)
	if err := m.allocations.Advance(ctx, a, alloc.Freeing); err != nil {
		return err
	}
	if err := m.host.RestoreVFState(ctx, pf, vf, *a.Snapshot.VF); err != nil {
		return nil
	}
	return m.allocations.End(ctx, a)
}

// requiredOnly returns the part of a spec that is worth trying: without a plain VLAN, which each driver sets that sets anything, and
// without rates while the PF has no carrier, which some drivers refuse then.
func requiredOnly(spec hw.VFSpec, pf hw.PF) hw.VFSpec {
	policies := map[hw.VFAttr]hw.Policy{}
	for attr, policy := range spec.Policies {
		plain := attr == hw.VFVLAN && spec.VLAN.QoS == 0 && spec.VLAN.Proto == ""
		if policy == hw.Required && !plain && (attr != hw.VFRate || pf.Carrier) {
			policies[attr] = policy
		}
	}
	spec.Policies = policies
	return spec
}

// freeVF returns a VF that is in no container and not used by the host, preferably one that the network may use; none if there is no such.
func (m sriov) freeVF(ctx context.Context, o *option.Network, pf hw.PF) (free hw.VF, _ error) {
	held, err := m.allocations.List(ctx)
	if err != nil {
		return free, err
	}
	vfs, err := m.host.VFs(pf)
	if err != nil {
		return free, err
	}
	states, err := m.host.VFStates(pf)
	if err != nil {
		return free, err
	}
	for _, vf := range vfs {
		ours := len(o.VFs) == 0 || slices.Contains(o.VFs, vf.Index)
		if !ours || held[vf.ID()] != nil || pf.Resetting(vf, states) {
			continue
		}
		if why, err := m.host.Taken(vf); err != nil || why == "" {
			return vf, err
		}
	}
	return free, nil
}

// optionOf returns the name of the option that a driver refuses an attribute for.
func optionOf(o *option.Network, attr hw.VFAttr) string {
	switch {
	case attr == hw.VFRate && o.MinRate != nil && *o.MinRate > 0:
		return "min_tx_rate"
	case attr == hw.VFRate:
		return "max_tx_rate"
	case attr == hw.VFVLAN && o.VLANProto != nil && *o.VLANProto != "":
		return "vlan_proto"
	case attr == hw.VFVLAN && o.VLANQoS != nil && *o.VLANQoS > 0:
		return "vlan_qos"
	case attr == hw.VFSpoofchk && o.Spoofchk == nil, attr == hw.VFTrust && o.Trust == nil:
		return "privileged"
	}
	return attr.String()
}
