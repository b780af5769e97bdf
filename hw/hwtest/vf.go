package hwtest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
	numbers "github.com/mellanox/passthrough/internal/number"
)

// VFs implements hw.Kernel.
func (k *Kernel) VFs(pf int) (map[int]hw.VFState, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	vfs, err := k.reportedLocked(pf)
	if vfs == nil {
		return nil, err
	}
	states := map[int]hw.VFState{}
	for i, vf := range vfs {
		s := vf.state
		s.Trunk = "" // rtnetlink does not know it
		if vf.conf.VendorTree {
			s.NodeGUID, s.PortGUID, s.LinkMode = "", "", ""
		}
		states[i] = s
	}
	return states, nil
}

// VFCounters implements hw.Kernel.
func (k *Kernel) VFCounters(pf int) (map[int]hw.Counters, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	vfs, err := k.reportedLocked(pf)
	if vfs == nil {
		return nil, err
	}
	counters := map[int]hw.Counters{}
	for i, vf := range vfs {
		counters[i] = vf.counters
	}
	return counters, nil
}

// reportedLocked returns the VFs that a PF's driver reports, by their index; nil if the link has none or its driver never reports any.
func (k *Kernel) reportedLocked(pf int) (map[int]*device, error) {
	l := k.byIndexLocked(hostNS, pf)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	if l.dev == nil || l.dev.pf != nil || !l.dev.conf.VFOps {
		return nil, nil
	}
	reported := map[int]*device{}
	for i, vf := range l.dev.vfs {
		down := l.dev.conf.VFOpsNeedUp && !l.Up
		if !down && !vf.resetting && vf.conf.ReportsVFs && !vf.conf.NoEswitch {
			reported[i] = vf
		}
	}
	return reported, nil
}

// CountVF sets what a PF's driver has counted of the frames of a VF. Most drivers count nothing, which the kernel reports as zeros
// (net/core/rtnetlink.c, rtnl_fill_vfinfo, Linux 6.12).
func (k *Kernel) CountVF(pci string, vf int, c hw.Counters) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.needPFLocked(pci).vfs[vf].counters = c
}

// ResetVFs sets which VFs a PF's driver is resetting at the moment; without indexes, none. The driver does not report
// those, and refuses to change them (ice_get_vf_cfg, i40e_ndo_get_vf_config, Linux 6.12).
func (k *Kernel) ResetVFs(pci string, indexes ...int) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	for i, vf := range d.vfs {
		vf.resetting = slices.Contains(indexes, i)
	}
}

// HealthReporters implements hw.Kernel.
func (k *Kernel) HealthReporters(pci string) ([]hw.HealthReporter, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.deviceLocked(pci); d != nil {
		return d.conf.Reporters, nil
	}
	return nil, nil
}

// Switchdev implements hw.Kernel.
func (k *Kernel) Switchdev(pci string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.deviceLocked(pci)
	return d != nil && d.conf.Switchdev, nil
}

// SetVF implements hw.Kernel.
func (k *Kernel) SetVF(pf, vf int, a hw.VFAttr, want hw.VFState) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, pf)
		if l == nil {
			return syscall.ENODEV
		}
		if l.dev == nil || l.dev.pf != nil || !l.dev.conf.VFOps {
			return syscall.EOPNOTSUPP
		}
		if vf < 0 || vf >= len(l.dev.vfs) {
			return syscall.EINVAL
		}
		switch {
		case l.dev.conf.NoEswitch:
			return syscall.EPERM
		case l.dev.conf.VFOpsNeedUp && !l.Up:
			return syscall.EINVAL
		case l.dev.vfs[vf].resetting:
			return syscall.EAGAIN
		}
		err := l.dev.vfs[vf].set(a, want)
		if takes := l.dev.conf.VFOpensAfter; err == nil && takes > 0 && (a == hw.VFMAC || a == hw.VFVLAN || a == hw.VFTrust) {
			k.closeVFLocked(l.dev.vfs[vf], takes)
		}
		k.servePortsLocked(l.dev)
		return err
	}, func() string { return fmt.Sprintf("set %s vf %d: %s", k.labelLocked(pf), vf, a.Op(want)) })
}

// set is a PF's driver changing one thing about a VF.
func (d *device) set(a hw.VFAttr, want hw.VFState) error {
	if err, ok := d.conf.recorded(a, want); ok {
		return err
	}
	linkType := "ether"
	if d.conf.InfiniBand {
		linkType = "infiniband"
	}
	if d.conf.VendorTree || !a.On(linkType) || a == hw.VFSpoofchk && !d.conf.Spoofchk || a == hw.VFTrust && !d.conf.Trust {
		return d.conf.unsupported()
	}
	if d.conf.Switchdev && (a == hw.VFVLAN && want.VLAN.ID != 0 || a == hw.VFTrust || a == hw.VFSpoofchk && !d.conf.SwitchdevSpoofchk) {
		return d.conf.unsupported()
	}
	switch a {
	case hw.VFMAC:
		return d.setMAC(want.MAC)
	case hw.VFVLAN:
		return d.setVLAN(want.VLAN)
	case hw.VFRate:
		return d.setRate(want.Rate)
	case hw.VFLinkState:
		return d.setLinkMode(want.LinkMode)
	}
	a.Copy(&d.state, &want)
	return nil
}

// unsupported is how the PF's driver refuses what it has no operation for.
func (c PF) unsupported() error {
	const enotsupp = syscall.Errno(524) // include/linux/errno.h
	if c.KernelErrno {
		return enotsupp
	}
	return syscall.EOPNOTSUPP
}

// setVLAN is the PF tagging a VF's frames. igb accepts 4095 as well; the caller has to check.
func (d *device) setVLAN(v hw.VLAN) error {
	if v.ID < 0 || v.ID > 4095 || v.QoS < 0 || v.QoS > 7 || v.QoS > 0 && !d.conf.VLANQoS {
		return syscall.EINVAL
	}
	if v.Proto != "" && !d.conf.Dot1AD {
		return syscall.EPROTONOSUPPORT
	}
	d.state.VLAN = v
	return nil
}

// setLinkMode is the PF deciding what a VF sees as its link.
func (d *device) setLinkMode(m hw.LinkMode) error {
	switch {
	case d.conf.IgnoresLinkState:
		d.off = m == hw.LinkDisable
	case !d.conf.LinkState:
		return syscall.EOPNOTSUPP
	default:
		d.state.LinkMode, d.off = m, m == hw.LinkDisable
	}
	return nil
}

// setRate is the PF limiting a VF: igb does so only while it has a link, and guarantees nothing.
func (d *device) setRate(r hw.Rate) error {
	if r.Min < 0 || r.Max < 0 || !d.conf.MinRate && (r.Min != 0 || d.pf.net == nil || !d.pf.net.carrier()) {
		return syscall.EINVAL
	}
	d.state.Rate = r
	return nil
}

// setMAC is the PF setting a VF's MAC; "" leaves the choice to the VF again. The netdev learns of it when its driver is next
// bound, unless the PF resets the VF for it.
func (d *device) setMAC(mac hw.MAC) error {
	if mac == "" || mac == "00:00:00:00:00:00" {
		d.state.MAC, d.adminMAC = "", false
		return nil // its netdev keeps what it has until it is bound again
	}
	a, err := net.ParseMAC(string(mac))
	if err != nil || len(a) != 6 || a[0]&1 != 0 {
		return syscall.EINVAL
	}
	d.state.MAC, d.adminMAC = hw.MAC(a.String()), true
	if d.conf.MACResetsVF && d.net != nil && !d.dead {
		d.net.MAC, d.net.PermMAC = d.state.MAC, d.state.MAC
	}
	return nil
}

// showTrunkLocked shows the file of a VF's trunk, if its PF's driver has one.
func (k *Kernel) showTrunkLocked(vf *device) {
	if vf.conf.Trunks == "" {
		return
	}
	ids, _ := numbers.ParseList(vf.state.Trunk, maxVLAN) // none in ""
	text := vf.state.Trunk
	if vf.conf.Trunks == TrunkRange && text != "" {
		text = "Allowed 802.1Q VLANs: " + strings.Trim(fmt.Sprint(ids), "[]")
	}
	k.tree.file(fmt.Sprintf("%s/sriov/%d/trunk", vf.pf.path, vf.index), text, func(v string) error {
		op, list, _ := strings.Cut(v, " ")
		if vf.conf.Trunks == TrunkRange {
			first, last, ok := strings.Cut(list, " ")
			if !ok {
				return syscall.EINVAL
			}
			list = first + "-" + last
		}
		changed, ok := numbers.ParseList(list, maxVLAN)
		switch {
		case !ok:
			return syscall.EINVAL
		case op == "add":
			vf.state.Trunk = hw.VLANRanges(append(ids, changed...))
		case op == "rem":
			vf.state.Trunk = hw.VLANRanges(slices.DeleteFunc(ids, func(id int) bool { return slices.Contains(changed, id) }))
		default:
			return syscall.EINVAL
		}
		k.showTrunkLocked(vf)
		return nil
	})
}

// maxVLAN is the highest number of a VLAN that drivers know (VLAN_N_VID).
const maxVLAN = 4095
