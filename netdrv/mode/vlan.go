package mode

import (
	"context"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// vlanOwners decides whose a VLAN is. On one PF it belongs to one network: to the one that has it by its options, or that has a container
// with it, by an option of the container or because the network keeps the VLANs of its VFs. Several networks may have untagged VFs.
type vlanOwners struct {
	network string // ID of the network that asks; "" for one that is being created
	others  []ledger.Network
	held    alloc.Set
}

// vlanOwners reads whose the VLANs are, for a container of a network.
func (m sriov) vlanOwners(ctx context.Context, network string, held alloc.Set) (vlanOwners, error) {
	all, err := ledger.List[ledger.Network](ctx, m.allocations.Store, ledger.NetworkPrefix)
	v := vlanOwners{network: network, held: held}
	for _, n := range all {
		if n.Rec.ID != network {
			v.others = append(v.others, n.Rec)
		}
	}
	return v, err
}

// reserver returns the other network that has a VLAN on a PF by its options; nil if none has.
func (v vlanOwners) reserver(vlan int, pf ledger.Device) *ledger.Network {
	for _, n := range v.others {
		o, err := option.ParseStored(n.Options)
		if err == nil && o.UsesVFs() && o.VLAN != nil && *o.VLAN == vlan && n.Has(pf.ID) {
			return &n
		}
	}
	return nil
}

// holder returns the allocation of the first VF of a PF that another network has in a VLAN; nil if there is none.
func (v vlanOwners) holder(vlan int, pf ledger.Device) (first *alloc.Allocation) {
	for _, a := range v.held {
		if a.PF == pf.ID.PCI() && a.Network != v.network && a.VLAN() == vlan && (first == nil || a.VF < first.VF) {
			first = a
		}
	}
	return first
}

// check refuses a VLAN that another network has on a PF. A VF that is on its way back from a container may still be in it: that is a
// [*vfpool.BusyError].
func (v vlanOwners) check(vlan int, pf ledger.Device) error {
	if vlan == 0 {
		return nil
	}
	const text = "option vlan: %d is used on %s (%s)"
	if n := v.reserver(vlan, pf); n != nil {
		return conflict(n.ID, text+" by network %s; choose another", vlan, pf.Name, pf.ID.PCI(), ledger.ShortID(n.ID))
	}
	a := v.holder(vlan, pf)
	switch {
	case a == nil || a.State == alloc.Quarantined: // which is in the host
		return nil
	case a.State == alloc.Freeing:
		return &vfpool.BusyError{Text: fmt.Sprintf(text+": %s", vlan, pf.Name, pf.ID.PCI(), a.Holder()), Soon: true}
	}
	return conflict(a.Network, text+": %s; choose another", vlan, pf.Name, pf.ID.PCI(), a.Holder())
}

// ofVF says that the VLAN that a VF has is another network's; "" if it is not.
func (v vlanOwners) ofVF(vf hw.VF, pfs []vfpool.PF) string {
	i := slices.IndexFunc(pfs, func(pf vfpool.PF) bool { return pf.Name == vf.PF })
	if i < 0 || pfs[i].States[vf.Index].VLAN.ID == 0 {
		return ""
	}
	vlan, pf := pfs[i].States[vf.Index].VLAN.ID, ledger.Device{ID: pfs[i].ID}
	owner := ""
	if n := v.reserver(vlan, pf); n != nil {
		owner = n.ID
	} else if a := v.holder(vlan, pf); a != nil {
		owner = a.Network
	}
	if owner == "" {
		return ""
	}
	return fmt.Sprintf("has the vlan of network %s, %d", ledger.ShortID(owner), vlan)
}

// checkVLAN refuses the VLAN of a new network if another network has it on one of the PFs.
func (m sriov) checkVLAN(ctx context.Context, o *option.Network, pfs []ledger.Device, others []ledger.Network) error {
	if o.VLAN == nil {
		return nil
	}
	held, err := m.allocations.List(ctx)
	if err != nil {
		return err
	}
	recorded, err := m.vlanOwners(ctx, "", held)
	if err != nil {
		return err
	}
	// What is on its way back from a removed network does not count, so that a network can be removed and created again. If it is
	// not back when a container is started, that waits. Of a network that is going to be removed, which has a record and is none of the
	// others, nothing counts. What a network without a record has counts: a container may have it.
	for id, a := range held {
		is := func(n ledger.Network) bool { return n.ID == a.Network }
		if a.Ending() || slices.ContainsFunc(recorded.others, is) && !slices.ContainsFunc(others, is) {
			delete(held, id)
		}
	}
	for _, pf := range pfs {
		if err := (vlanOwners{others: others, held: held}).check(*o.VLAN, pf); err != nil {
			return err
		}
	}
	return nil
}
