package mode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// Check finds the PFs, and refuses a VLAN or a device that another network has, and what is known of PFs and their drivers.
func (m sriov) Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error) {
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
	p := &Plan{pfs: pfs}
	for _, pf := range pfs {
		p.Devices = append(p.Devices, ledger.Device{ID: pf.ID, Name: pf.Name})
		if err := notWhole(pf, others); err != nil {
			return nil, err
		}
		if err := checkRange(o, pf); err != nil {
			return nil, err
		}
		if err := checkTuning(m.host, o, pf.Netdev); err != nil {
			return nil, err
		}
		if err := m.rdma.check(o, pf); err != nil {
			return nil, err
		}
		switch on, err := m.ports.check(o, &o.Container, pf); {
		case err != nil:
			return nil, err
		case on && o.HostAccess:
			return nil, fmt.Errorf("option host_access: %s is in switchdev mode, in which its netdev is the nic's uplink and does not reach the vfs; reach "+
				"containers through a bridge that has the representors of their vfs", pf)
		case on && o.Bridge != "":
			p.step("%s is in switchdev mode: the representor of each container's vf is up, and a port of %s with the vlans %s, while a container has the vf", pf,
				o.Bridge, portVLANs(o))
			if of, err := m.host.NameOf(pf.Master); err == nil && of != o.Bridge {
				p.step("%s, the uplink, is no port of %s: containers reach the wire only by way of the host", pf.Name, o.Bridge)
			}
		case on:
			p.step("%s is in switchdev mode: the representor of each container's vf is up while a container has the vf", pf)
		}
	}
	if err := m.checkVLAN(ctx, o, p.Devices, others); err != nil {
		return nil, err
	}
	if err := checkNUMA(o, pfs); err != nil {
		return nil, err
	}
	if _, err := nearTo(m.host, &o.Container); err != nil {
		return nil, err
	}
	return p, m.planVFs(ctx, o, p)
}

// portVLANs says which VLANs the port of a bridge has.
func portVLANs(o *option.Network) string {
	vlan := 0
	if o.VLAN != nil {
		vlan = *o.VLAN
	}
	if vlans := option.PortVLANs(vlan, o.Trunk); vlans != nil {
		return vlans.String()
	}
	return "of a new port"
}

// planVFs adds to a plan what is done to the PFs, and refuses what their drivers are known not to do.
func (m sriov) planVFs(ctx context.Context, o *option.Network, p *Plan) error {
	for _, pf := range p.pfs {
		n, err := m.pool.Plan(ctx, pf, o.NumVFs)
		if err != nil {
			return err
		}
		if !pf.Up && n > 0 {
			p.step("%s is down, and is brought up", pf)
		} else if !pf.Up {
			p.step("%s is down, and is brought up for the first container", pf)
		}
		if n > 0 {
			p.bare = append(p.bare, pf)
			p.step("%d vfs are created on %s, and removed with its last network", n, pf)
		} else {
			p.step("containers get the %d vfs that %s has", pf.NumVFs, pf)
		}
		if o.VLAN != nil && *o.VLAN > 0 {
			p.step("vlan %d of %s belongs to this network", *o.VLAN, pf)
		}
	}
	for _, pf := range p.pfs {
		if slices.ContainsFunc(p.bare, func(bare hw.PF) bool { return bare.ID == pf.ID }) {
			continue
		}
		if err := m.checkReported(ctx, o, pf); err != nil {
			return err
		}
	}
	p.Untried = m.untried(o, p)
	return nil
}

// untried says what only Make finds out.
func (m sriov) untried(o *option.Network, p *Plan) (all []string) {
	drivers := map[string]bool{}
	for _, pf := range p.pfs {
		var names []string
		for attr := range requiredOnly(o.VFSpec(pf, hw.VFState{}, ""), pf).Policies {
			names = append(names, optionOf(o, attr))
		}
		if slices.Sort(names); len(names) > 0 && !drivers[pf.Driver] {
			all = append(all, fmt.Sprintf("whether driver %s can set %s; it is tried on a free vf of %s", pf.Driver, strings.Join(names, ", "), pf))
		}
		drivers[pf.Driver] = true
	}
	for _, pf := range p.bare {
		all = append(all, fmt.Sprintf("whether the vfs of %s can be created, and what they can have", pf))
	}
	return all
}

// Make creates the VFs of PFs that have none, and tries on one what the network wants of VFs.
func (m sriov) Make(ctx context.Context, o *option.Network, p *Plan) ([]ledger.Device, error) {
	if err := m.pool.EnsureAll(ctx, p.pfs, o.NumVFs); err != nil {
		return p.Devices, err
	}
	for _, pf := range p.bare {
		if err := m.checkReported(ctx, o, pf); err != nil {
			return p.Devices, err
		}
	}
	return p.Devices, m.tryAll(ctx, o, p.pfs)
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

// nearTo returns the PCI addresses of the devices that the PFs are to be near to, none without that option. It refuses one that the machine does
// not have.
func nearTo(host *hw.Host, o *option.Container) ([]string, error) {
	switch o.Near {
	case "":
		return nil, nil
	case option.NearGPU:
		gpus, err := host.Topology().GPUs()
		if err == nil && len(gpus) == 0 {
			err = errors.New("this machine has no gpu; give the pci address of a device")
		}
		if err != nil {
			return nil, fmt.Errorf("option near: %w", err)
		}
		return gpus, nil
	}
	if _, err := host.Topology().Distance(o.Near, o.Near); err != nil {
		return nil, fmt.Errorf("option near: %w", err)
	}
	return []string{o.Near}, nil
}
