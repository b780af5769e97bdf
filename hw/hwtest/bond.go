package hwtest

import (
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// AddPort makes a link in the host a port of an Open vSwitch datapath, as ovs-vswitchd does. The datapath is a link of kind
// openvswitch; rtnetlink cannot add ports to it.
func (k *Kernel) AddPort(datapath, name string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	m, l := k.needLocked(hostNS, datapath), k.needLocked(hostNS, name)
	l.master = m
	m.ports = append(m.ports, l)
	k.showLocked(l)
}

// setMasterLocked makes a link a port of a bond or bridge, or of none.
func (k *Kernel) setMasterLocked(l *link, index int) error {
	var m *link
	if index != 0 {
		if m = k.byIndexLocked(l.ns, index); m == nil {
			return syscall.EINVAL
		}
		if m.Kind != hw.Bond && m.Kind != "bridge" && m.Kind != "vrf" {
			return syscall.EOPNOTSUPP
		}
		if m == l.master {
			return nil
		}
		if m.Kind == hw.Bond && l.Up {
			return syscall.EPERM // "Device can not be enslaved while up"
		}
		if k.childrenLocked(l) != nil && m.Kind != "vrf" {
			return syscall.EBUSY // its receive handler is taken
		}
	}
	if l.master != nil {
		k.releaseLocked(l)
	}
	if m == nil {
		return nil
	}
	if m.Kind == hw.Bond {
		if err := k.enslaveLocked(l, m); err != nil {
			return err
		}
	}
	l.master = m
	m.ports = append(m.ports, l)
	if m.Kind == "bridge" {
		l.vlans = defaultVLANs()
	}
	k.showLocked(m)
	k.showPeersLocked(m)
	return nil
}

// enslaveLocked gives a bond's port the bond's MAC and MTU, and sets it up. A bond that was given no MAC takes its first
// port's (drivers/net/bonding/bond_main.c, bond_enslave, Linux 6.12).
func (k *Kernel) enslaveLocked(l, bond *link) error {
	if len(bond.ports) == 0 && bond.drawnMAC {
		bond.MAC, bond.drawnMAC = l.MAC, false
	}
	mac, mtu := l.MAC, l.MTU
	if err := k.setMTULocked(l, bond.MTU); err != nil {
		return err
	}
	if err := k.setMACLocked(l, bond.MAC); err != nil {
		l.MTU = mtu
		return err
	}
	l.beforeMAC, l.beforeMTU = mac, mtu
	k.setUpLocked(l, true)
	return nil
}

// releaseLocked takes a port out of its bond or bridge. A bond gives it its MAC and MTU back and leaves it down, and
// draws a MAC for itself when it was the last.
func (k *Kernel) releaseLocked(l *link) {
	m := l.master
	l.master, l.vlans = nil, nil
	l.drop(hw.EntryBridgePort, hw.EntryFDB)
	m.ports = slices.DeleteFunc(m.ports, func(p *link) bool { return p == l })
	if m.Kind == hw.Bond {
		k.setUpLocked(l, false)
		l.MTU = l.beforeMTU
		// The kernel warns of a port that does not take its MAC back, and goes on.
		_ = k.setMACLocked(l, l.beforeMAC)
		if len(m.ports) == 0 {
			m.MAC, m.drawnMAC = k.drawMAC(), true
		}
	}
	k.showLocked(l)
	k.showLocked(m)
	k.showPeersLocked(m)
}

// defaultVLANs are those of a new port of a bridge (default_pvid; net/bridge/br_vlan.c, nbp_vlan_init, Linux 6.12).
func defaultVLANs() hw.PortVLANs { return hw.PortVLANs{1: {PVID: true, Untagged: true}} }

// PortVLANs implements hw.Kernel.
func (k *Kernel) PortVLANs(index int) (hw.PortVLANs, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil || l.master == nil || l.master.Kind != "bridge" {
		return nil, hw.FromErrno(syscall.EOPNOTSUPP)
	}
	return maps.Clone(l.vlans), nil
}

// SetPortVLANs implements hw.Kernel.
func (k *Kernel) SetPortVLANs(index int, want hw.PortVLANs) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil || l.master == nil || l.master.Kind != "bridge" {
			return syscall.EOPNOTSUPP
		}
		for vid := range want {
			if vid < 1 || vid > 4094 {
				return syscall.EINVAL
			}
		}
		l.vlans = maps.Clone(want)
		return nil
	}, func() string { return fmt.Sprintf("set vlans of %s to %v", k.labelLocked(index), want) })
}
