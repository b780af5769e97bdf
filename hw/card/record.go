package card

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Kernel is what a record needs of the kernel: what the host needs, and what only a reader of a record wants to know.
type Kernel interface {
	hw.Kernel
	// Statistics lists the names of a driver's statistics (ETHTOOL_GSTRINGS), none if it has none.
	Statistics(index int) ([]string, error)
	// Devlink returns the mode of the eswitch of a PCI function, and the versions of its firmware, without its serial number. What
	// its driver does not have is empty.
	Devlink(pci string) (Devlink, error)
	// VFInfos returns what VFs of the interface decodes: the attributes of each VF as rtnetlink has them.
	VFInfos(pf int) (map[int]hw.VFInfo, error)
}

// fewVFs is how many VFs a record has: they are alike.
const fewVFs = 3

// A Recorder records NICs of a host.
type Recorder struct {
	Kernel Kernel
	Host   *hw.Host
	Sys    fs.FS // sysfs

	macs map[string]string // made-up MACs and GUIDs, by the real ones
}

// Record reads a PF, and changes nothing.
func (r *Recorder) Record(ref string) (*Card, error) {
	pf, err := r.Host.PF(ref)
	if err != nil {
		return nil, err
	}
	c := &Card{Format: Format, Driver: Driver{Bound: pf.Driver}, PCI: r.pci(pf), Link: r.link(pf)}
	for _, read := range []struct {
		what string
		do   func(*Card, hw.PF) error
	}{{"ethtool", r.ethtool}, {"driver", r.driver}, {"devlink", r.devlink}, {"vfs", r.vfs}} {
		if err := read.do(c, pf); err != nil {
			return nil, &hw.Error{Dev: pf.String(), Op: "read " + read.what, Err: err}
		}
	}
	return c, nil
}

// text returns a sysfs attribute, "" if there is none or it cannot be read.
func (r *Recorder) text(name string) string {
	b, err := fs.ReadFile(r.Sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number returns a sysfs attribute, 0 if there is none or it is no number.
func (r *Recorder) number(name string) int {
	n, _ := strconv.Atoi(r.text(name))
	return n
}

// has returns true if there is something of that name in sysfs.
func (r *Recorder) has(name string) bool {
	_, err := fs.Lstat(r.Sys, name)
	return err == nil
}

// dir returns the directory of a PCI function.
func dir(pci string) string { return "bus/pci/devices/" + pci }

func (r *Recorder) pci(pf hw.PF) PCI {
	at := dir(pf.PCI())
	id := func(name string) string { return strings.TrimPrefix(r.text(path.Join(at, name)), "0x") }
	p := PCI{Vendor: id("vendor"), Device: id("device"), Revision: id("revision"), VFDevice: id("sriov_vf_device"),
		VFOffset: r.number(at + "/sriov_offset"), VFStride: r.number(at + "/sriov_stride"), TotalVFs: pf.TotalVFs, NumVFs: pf.NumVFs,
		Autoprobe: id("sriov_drivers_autoprobe"), VFTotalMSIX: id("sriov_vf_total_msix")}
	if v := id("subsystem_vendor"); v != "" {
		p.Subsystem = v + ":" + id("subsystem_device")
	}
	return p
}

func (r *Recorder) link(pf hw.PF) Link {
	at := "class/net/" + pf.Name
	l := Link{Type: pf.Type, Up: pf.Up, Carrier: pf.Carrier, MTU: pf.MTU, MaxMTU: pf.MaxMTU, PortName: r.text(at + "/phys_port_name"),
		Port: r.number(at + "/dev_port"), SwitchID: r.text(at+"/phys_switch_id") != "", RDMA: r.has(dir(pf.PCI()) + "/infiniband"),
		VFFiles: r.has(dir(pf.PCI()) + "/sriov/0/policy")}
	if speed := r.number(at + "/speed"); speed > 0 { // -1 for unknown
		l.Speed = speed
	}
	return l
}

func (r *Recorder) driver(c *Card, pf hw.PF) error {
	d, err := r.Kernel.DriverInfo(pf.Index)
	c.Driver = Driver{Bound: pf.Driver, Name: d.Name, Version: d.Version, Firmware: d.Firmware}
	return err
}

func (r *Recorder) devlink(c *Card, pf hw.PF) (err error) {
	c.Devlink, err = r.Kernel.Devlink(pf.PCI())
	return err
}

func (r *Recorder) ethtool(c *Card, pf hw.PF) (err error) {
	t, err := r.Kernel.Tuning(pf.Index)
	if err != nil {
		return err
	}
	e := Ethtool{Features: map[string]string{}, PrivateFlags: map[string]string{}}
	if t.MaxQueues != (hw.Queues{}) {
		e.Queues = fmt.Sprintf("%v of %v", t.Queues, t.MaxQueues)
	}
	if t.MaxRings != (hw.Rings{}) {
		e.Rings = fmt.Sprintf("%v of %v", t.Rings, t.MaxRings)
	}
	for name, f := range t.Features {
		if name == "" { // one that the kernel has reserved
			continue
		}
		e.Features[name] = pick(f.Active, "on", "off") + pick(f.Fixed, " fixed", "")
	}
	controls, err := r.Kernel.Controls(pf.Index)
	if err != nil {
		return err
	}
	for _, control := range controls {
		switch {
		case control.Kind == hw.ControlPrivateFlag:
			e.PrivateFlags[control.Name] = pick(len(control.Body) > 0 && control.Body[0] == 1, "on", "off")
		case control.Kind == hw.ControlRSS && len(control.Body) >= 12: // indir_size and key_size of struct ethtool_rxfh; the key is random
			e.RSS = fmt.Sprintf("table of %d, key of %d bytes", binary.NativeEndian.Uint32(control.Body[4:]), binary.NativeEndian.Uint32(control.Body[8:]))
		}
	}
	e.Statistics, err = r.Kernel.Statistics(pf.Index)
	c.Ethtool = e
	return err
}

// vfs reads the first VFs of a PF.
func (r *Recorder) vfs(c *Card, pf hw.PF) error {
	vfs, err := r.Host.VFs(pf)
	if err != nil {
		return err
	}
	infos, err := r.Kernel.VFInfos(pf.Index)
	if err != nil {
		return err
	}
	c.VFs = nil
	for _, vf := range vfs[:min(len(vfs), fewVFs)] {
		c.VFs = append(c.VFs, VF{Index: vf.Index, Driver: vf.Driver, Shows: r.shown(infos[vf.Index])})
	}
	return nil
}

// vfAttributes are the attributes of a VF in rtnetlink, without its counters.
func vfAttributes() map[uint16]string {
	return map[uint16]string{unix.IFLA_VF_MAC: "mac", unix.IFLA_VF_VLAN: "vlan", unix.IFLA_VF_VLAN_LIST: "vlan_list", unix.IFLA_VF_TX_RATE: "tx_rate",
		unix.IFLA_VF_RATE: "rate", unix.IFLA_VF_SPOOFCHK: "spoofchk", unix.IFLA_VF_LINK_STATE: "link_state", unix.IFLA_VF_TRUST: "trust",
		unix.IFLA_VF_RSS_QUERY_EN: "rss_query", unix.IFLA_VF_IB_NODE_GUID: "node_guid", unix.IFLA_VF_IB_PORT_GUID: "port_guid",
		unix.IFLA_VF_BROADCAST: "broadcast"}
}

// shown returns what rtnetlink has of a VF.
func (r *Recorder) shown(info hw.VFInfo) map[string]string {
	shows := map[string]string{}
	for attr, name := range vfAttributes() {
		value, ok := info[attr]
		switch {
		case !ok || len(value) < 4:
		case attr == unix.IFLA_VF_MAC && len(value) >= 10:
			shows[name] = r.disguised(net.HardwareAddr(value[4:10]).String())
		case attr == unix.IFLA_VF_IB_NODE_GUID || attr == unix.IFLA_VF_IB_PORT_GUID:
			shows[name] = r.disguised(net.HardwareAddr(value[4:]).String())
		case attr == unix.IFLA_VF_BROADCAST || attr == unix.IFLA_VF_VLAN_LIST: // which are not the VF's own, or nested
			shows[name] = fmt.Sprintf("%d bytes", len(value))
		default:
			var words []string
			for ; len(value) >= 8; value = value[4:] {
				words = append(words, word(binary.NativeEndian.Uint32(value[4:])))
			}
			shows[name] = strings.Join(words, " ")
		}
	}
	if len(shows) == 0 {
		return nil
	}
	return shows
}

// word returns a number of rtnetlink.
func word(n uint32) string {
	if n == 0xffffffff {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

// noMAC is what a driver reports that has set no MAC.
const noMAC = "00:00:00:00:00:00"

// disguised returns a made-up MAC or GUID for a real one: the same for the same.
func (r *Recorder) disguised(mac string) string {
	if strings.Trim(mac, "0:") == "" || strings.Trim(mac, "f:") == "" {
		return mac
	}
	if r.macs == nil {
		r.macs = map[string]string{}
	}
	if r.macs[mac] == "" {
		made := make(net.HardwareAddr, (len(mac)+1)/3)
		copy(made, []byte{2, 0, 0xca, 0x4d})
		made[len(made)-1] = byte(len(r.macs) + 1)
		r.macs[mac] = made.String()
	}
	return r.macs[mac]
}

// CheckPrivate returns an error if a text has one of the words that a record must not have, such as the name of the host or a MAC: a driver
// may name its statistics as it likes, and a kernel's release is what its builder has called it.
func CheckPrivate(text string, words ...string) error {
	for _, w := range words {
		if w != "" && regexp.MustCompile(`(?i)(^|[^a-z0-9_])`+regexp.QuoteMeta(w)+`([^a-z0-9_]|$)`).MatchString(text) {
			return fmt.Errorf("the record has %q in it, which is yours; nothing was written", w)
		}
	}
	return nil
}

// Private lists what a record of a PF must not have: the MACs of the host's links.
func (r *Recorder) Private() ([]string, error) {
	links, err := r.Kernel.Links()
	if err != nil {
		return nil, err
	}
	words := map[string]bool{}
	for _, l := range links {
		for _, mac := range []hw.MAC{l.MAC, l.PermMAC} {
			if strings.Trim(string(mac), "0f:") != "" {
				words[string(mac)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(words)), nil
}

// state is what a record with settings has to leave as it was, line by line.
func (r *Recorder) state(ref string) ([]string, error) {
	pf, err := r.Host.PF(ref)
	if err != nil {
		return nil, err
	}
	vfs, err := r.Host.VFs(pf)
	if err != nil {
		return nil, err
	}
	states, err := r.Host.VFStates(pf)
	if err != nil {
		return nil, err
	}
	lines := []string{fmt.Sprintf("pf: %s, up %t, mtu %d, txqlen %d, promisc %t, %d vfs, autoprobe %s", pf.Name, pf.Up, pf.MTU, pf.TxQLen, pf.Promisc,
		pf.NumVFs, r.text(dir(pf.PCI())+"/sriov_drivers_autoprobe"))}
	for _, vf := range vfs {
		n := vf.Netdev
		lines = append(lines, fmt.Sprintf("vf %d: driver %s, override %s, netdev %s, up %t, mac %s, mtu %d, set by its pf: %+v", vf.Index,
			cmp.Or(vf.Driver, "none"), cmp.Or(vf.Override, "none"), cmp.Or(n.Name, "none"), n.Up, n.MAC, n.MTU, states[vf.Index]))
	}
	return lines, nil
}

// differs returns the lines that were not there before, with MACs made up.
func (r *Recorder) differs(before, after []string) (lines []string) {
	for _, l := range after {
		if !slices.Contains(before, l) {
			lines = append(lines, l)
		}
	}
	for i, l := range lines {
		for _, field := range strings.FieldsFunc(l, func(c rune) bool { return !strings.ContainsRune("0123456789abcdef:", c) }) {
			if _, err := net.ParseMAC(field); err == nil {
				l = strings.ReplaceAll(l, field, r.disguised(field))
			}
		}
		lines[i] = l
	}
	return lines
}

// errNoVF is that no VF may be changed.
var errNoVF = errors.New("none of its vfs is free")
