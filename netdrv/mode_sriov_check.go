package netdrv

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// check finds the PFs, refuses a VLAN or a device that another network has, and makes the VFs where there are none.
func (d sriov) check(ctx context.Context, c *option.Network, others []ledger.Network) (devices []ledger.Device, _ error) {
	pfs, err := d.selectPFs(c.Netdevice)
	if err != nil {
		return nil, err
	}
	if c.Bond != "" && len(pfs) < 2 {
		return nil, fmt.Errorf("option bond: netdevice=%s is one pf (%s); a bond takes one vf of each of two or more", c.Netdevice, pfs[0])
	}
	for _, pf := range pfs {
		devices = append(devices, ledger.Device{ID: pf.ID, Name: pf.Name})
		if err := notWhole(pf, others); err != nil {
			return nil, err
		}
		if err := checkRange(c, pf); err != nil {
			return nil, err
		}
		if err := d.checkTuning(c, pf.Netdev); err != nil {
			return nil, err
		}
	}
	if err := vlanFree(c.VLAN, devices, others); err != nil {
		return nil, err
	}
	if err := checkNode(c, pfs); err != nil {
		return nil, err
	}
	if err := d.shareAll(ctx, pfs, c.NumVFs); err != nil {
		return devices, err
	}
	for _, pf := range pfs { // what a PF's driver can do for its VFs shows only once there are some
		if err := d.host.CheckVFSupport(pf, c.VFSpec(pf, hw.VFState{}, "")); err != nil {
			return devices, err
		}
	}
	return devices, nil
}

// notWhole refuses a PF that another network hands over whole.
func notWhole(pf hw.PF, others []ledger.Network) error {
	for _, n := range others {
		o, err := option.Parse(n.Options)
		if err == nil && o.Mode == option.ModePassthrough && n.Has(pf.ID) {
			return used(n.ID, "option netdevice: %s is handed over whole by network %s", pf, ledger.ShortID(n.ID))
		}
	}
	return nil
}

// checkRange refuses VFs that the PF does not have, or will not have once its VFs are made.
func checkRange(c *option.Network, pf hw.PF) error {
	have := cmp.Or(pf.NumVFs, c.NumVFs, pf.TotalVFs)
	if len(c.VFs) > 0 && slices.Max(c.VFs) >= have {
		return fmt.Errorf("option vfs: %s has vf 0 to %d, no vf %d", pf, have-1, slices.Max(c.VFs))
	}
	return nil
}

// checkNode refuses a NUMA node that none of the PFs is on.
func checkNode(c *option.Network, pfs []hw.PF) error {
	var where []string
	for _, pf := range pfs {
		if !c.NUMA.Given || pf.Node == c.NUMA.Node {
			return nil
		}
		where = append(where, fmt.Sprintf("%s is on node %d", pf, pf.Node))
	}
	return fmt.Errorf("option numa: no pf of the network is on node %d: %s", c.NUMA.Node, strings.Join(where, ", "))
}

// vlanFree refuses a tag that another network has on one of the PFs. Untagged VFs may be of several networks.
func vlanFree(vlan *int, pfs []ledger.Device, others []ledger.Network) error {
	if vlan == nil || *vlan == 0 {
		return nil
	}
	for _, n := range others {
		o, err := option.Parse(n.Options)
		if err != nil || o.VLAN == nil || *o.VLAN != *vlan {
			continue
		}
		for _, pf := range pfs {
			if n.Has(pf.ID) {
				return used(n.ID, "option vlan: %d is used on %s (%s) by network %s; choose another", *vlan, pf.Name,
					pf.ID.PCI(), ledger.ShortID(n.ID))
			}
		}
	}
	return nil
}
