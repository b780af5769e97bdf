package mode

import (
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// representors set up the ports of a NIC's switch that lead to VFs, if its eswitch is in switchdev mode. A VF has a link while its port is up.
type representors struct{ host *hw.Host }

// check refuses what a PF does not do for its VFs in the mode that its eswitch is in. on is true if that is switchdev. c has the values of the
// container, or of the network.
func (r representors) check(o *option.Network, c *option.Container, pf hw.PF) (on bool, _ error) {
	on, err := r.host.Switchdev(pf)
	tagged := c.VLAN != nil && *c.VLAN > 0
	switch {
	case err != nil:
		return false, err
	case !on && o.Bridge != "":
		return false, fmt.Errorf("option bridge: %s is in legacy mode, in which its vfs have no ports on the host; leave bridge out, or change that with: "+
			"devlink dev eswitch set pci/%s mode switchdev", pf, pf.PCI())
	case !on && tagged && o.Trunk != "":
		return false, fmt.Errorf("option trunk: not beside vlan=%d: %s is in legacy mode, in which a vf is in one vlan or has a trunk", *c.VLAN, pf)
	case !on:
		return false, nil
	case o.Bridge == "" && (tagged || o.Trunk != ""):
		name := "trunk"
		if tagged {
			name = "vlan"
		}
		return true, fmt.Errorf("option %s: %s is in switchdev mode, in which the nic tags nothing for its vfs; give bridge=NAME as well, or leave %s out and have "+
			"Open vSwitch tag what comes from the representor", name, pf, name)
	case o.Bridge == "":
		return true, nil
	}
	_, err = r.bridge(o, c)
	return true, err
}

// bridge returns the bridge of a network. It refuses one that has no VLANs for its ports.
func (r representors) bridge(o *option.Network, c *option.Container) (hw.Link, error) {
	br, filters, err := r.host.Bridge(o.Bridge)
	if err == nil && !filters && (c.VLAN != nil && *c.VLAN > 0 || o.Trunk != "") {
		err = fmt.Errorf("bridge %s does not filter vlans, so its ports have none; change that with: ip link set %s type bridge vlan_filtering 1", br.Name, br.Name)
	}
	if err != nil {
		err = fmt.Errorf("option bridge: %w", err)
	}
	return br, err
}

// free adds to what says why a VF is in use that its representor is a port already, which an administrator has made it. The representors are read
// once, as the VFs have been.
func (r representors) free(pfs []vfpool.PF, inUse func(hw.VF) (string, error)) (func(hw.VF) (string, error), error) {
	ports := map[string]map[int]hw.Netdev{} // by PF and VF
	for _, pf := range pfs {
		var err error
		if ports[pf.Name], err = r.host.Representors(pf.PF); err != nil {
			return nil, err
		}
	}
	return func(vf hw.VF) (string, error) {
		why, err := inUse(vf)
		if n := ports[vf.PF][vf.Index]; why == "" && err == nil && n.Master != 0 {
			of, _ := r.host.NameOf(n.Master) // "" if it has just gone
			why = fmt.Sprintf("has the representor %s, which the host has made a port of %s", n.Name, of)
		}
		return why, err
	}, nil
}

// record returns what the record of a VF says of its representor, before that is touched; nil on a PF that is not in switchdev mode.
func (r representors) record(o *option.Network, c *option.Container, pf hw.PF, vf hw.VF) (*alloc.Representor, error) {
	on, err := r.check(o, c, pf)
	if err != nil || !on {
		return nil, err
	}
	n, err := r.find(pf, vf.Index)
	if err != nil {
		return nil, err
	}
	p := &alloc.Representor{Name: n.Name, Up: n.Up, Trunk: o.Trunk}
	if c.VLAN != nil {
		p.VLAN = *c.VLAN
	}
	if o.Bridge != "" {
		br, err := r.bridge(o, c)
		p.Bridge, p.BridgeName = br.Index, br.Name
		return p, err
	}
	return p, nil
}

// find returns the representor of a VF. The error matches hw.ErrNotFound if it is not in the host.
func (r representors) find(pf hw.PF, vf int) (hw.Netdev, error) {
	all, err := r.host.Representors(pf)
	if err != nil {
		return hw.Netdev{}, err
	}
	n, ok := all[vf]
	if !ok {
		return n, &hw.Error{Dev: fmt.Sprintf("vf %d of %s", vf, pf), Err: hw.Because(hw.ErrNotFound, "its representor is not in the host")}
	}
	return n, nil
}

// open makes the representor of a VF a port of its bridge, and sets it up.
func (r representors) open(ctx context.Context, pf hw.PF, a *alloc.Allocation) error {
	if a.Representor == nil {
		return nil
	}
	p := a.Representor
	n, err := r.find(pf, a.VF)
	if err == nil && p.Bridge != 0 {
		err = r.host.JoinBridge(n, hw.Link{Index: p.Bridge, Name: p.BridgeName}, option.PortVLANs(p.VLAN, p.Trunk))
	}
	if err != nil || n.Up {
		return err
	}
	return r.host.OpenPort(ctx, n)
}

// restore makes the representor of a VF what it was before. One that is gone, with its VF or because the eswitch has another mode, counts as
// restored.
func (r representors) restore(a *alloc.Allocation) error {
	if a.Representor == nil {
		return nil
	}
	pf, err := r.host.PF(a.PF)
	var n hw.Netdev
	if err == nil {
		n, err = r.find(pf, a.VF)
	}
	if errors.Is(err, hw.ErrNotFound) {
		return nil
	}
	if err == nil && a.Representor.Bridge != 0 && n.Master == a.Representor.Bridge { // otherwise an administrator has moved it since
		err = r.host.LeaveBridge(n)
	}
	if err == nil && n.Up && !a.Representor.Up {
		err = r.host.ClosePort(n)
	}
	return err
}
