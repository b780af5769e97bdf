package mode

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// Check finds the PFs, refuses a VLAN or a device that another network has, and creates the VFs of PFs that have none.
func (m sriov) Check(ctx context.Context, o *option.Network, others []ledger.Network) (devices []ledger.Device, _ error) {
	pfs, err := m.finder.PFs(o.Netdevice)
	if err != nil {
		return nil, err
	}
	if o.Bond != "" && len(pfs) < 2 {
		return nil, fmt.Errorf("option bond: netdevice=%s is one pf (%s); a bond takes one vf of each of two or more", o.Netdevice, pfs[0])
	}
	if err := checkHostAccess(o, pfs); err != nil {
		return nil, err
	}
	for _, pf := range pfs {
		devices = append(devices, ledger.Device{ID: pf.ID, Name: pf.Name})
		if err := notWhole(pf, others); err != nil {
			return nil, err
		}
		if err := checkRange(o, pf); err != nil {
			return nil, err
		}
		if err := checkTuning(m.host, o, pf.Netdev); err != nil {
			return nil, err
		}
	}
	if err := m.checkVLAN(ctx, o, devices, others); err != nil {
		return nil, err
	}
	if err := checkNUMA(o, pfs); err != nil {
		return nil, err
	}
	if err := m.pool.EnsureAll(ctx, pfs, o.NumVFs); err != nil {
		return devices, err
	}
	return devices, m.checkAttributes(ctx, o, pfs)
}

// checkHostAccess refuses PFs of which the host can have no child to reach the VFs.
func checkHostAccess(o *option.Network, pfs []hw.PF) error {
	switch {
	case !o.HostAccess:
		return nil
	case len(pfs) > 1:
		return fmt.Errorf("option host_access: is for one pf; netdevice=%s are %d", o.Netdevice, len(pfs))
	case pfs[0].InfiniBand():
		return fmt.Errorf("option host_access: %s is an infiniband pf", pfs[0].Name)
	}
	return nil
}

// notWhole refuses a PF that another network hands over whole.
func notWhole(pf hw.PF, others []ledger.Network) error {
	for _, n := range others {
		o, err := option.ParseStored(n.Options)
		if err == nil && o.Mode == option.ModePassthrough && n.Has(pf.ID) {
			return conflict(n.ID, "option netdevice: %s is handed over whole by network %s", pf, ledger.ShortID(n.ID))
		}
	}
	return nil
}

// checkRange refuses VFs that the PF does not have, or will not have once its VFs are created.
func checkRange(o *option.Network, pf hw.PF) error {
	have := cmp.Or(pf.NumVFs, o.NumVFs, pf.TotalVFs)
	if len(o.VFs) > 0 && slices.Max(o.VFs) >= have {
		return fmt.Errorf("option vfs: %s has vf 0 to %d, no vf %d", pf, have-1, slices.Max(o.VFs))
	}
	return nil
}

// checkNUMA refuses a NUMA node that none of the PFs is on.
func checkNUMA(o *option.Network, pfs []hw.PF) error {
	var where []string
	for _, pf := range pfs {
		if !o.NUMA.Given || pf.Node == o.NUMA.Node {
			return nil
		}
		where = append(where, fmt.Sprintf("%s is on node %d", pf, pf.Node))
	}
	return fmt.Errorf("option numa: no pf of the network is on node %d: %s", o.NUMA.Node, strings.Join(where, ", "))
}
