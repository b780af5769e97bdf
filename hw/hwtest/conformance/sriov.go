package conformance

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// A TestPF is a PF that SRIOV may change: an igb with a cable and without VFs. SRIOV leaves it up and without VFs.
type TestPF struct {
	Kernel   hw.Kernel
	Sys      fs.FS  // its sysfs
	PCI      string // address of the PF
	VFDriver string // loaded, or loaded by udev when VFs appear
}

// SRIOV tests an hw.Kernel and its sysfs with the VFs of a PF. open returns the PF of one test.
func SRIOV(t *testing.T, open func(t *testing.T) TestPF) {
	tests := []struct {
		name string
		run  func(*testing.T, TestPF)
	}{
		{"the count of VFs changes through 0", testVFCount},
		{"a PF without an eswitch is not in switchdev mode", testVFSwitchdev},
		{"VFs as they are made", testVFDefaults},
		{"a VF is probed on demand", testVFProbe},
		{"settings are read back", testVFSettings},
		{"settings that are refused", testVFRefused},
		{"a VF takes the MAC that its PF has set when it is bound", testVFMAC},
		{"a VF without a MAC from its PF draws one and may change it", testVFDrawsMAC},
		{"a VF has carrier while its PF is up", testVFCarrier},
		{"a VF that is bound while its PF is down is dead", testVFDead},
		{"a VF that is bound while its PF is reset does not master the bus until it is bound again", testPFReset},
		{"interrupts are known once they have been requested, and stay where they were sent", testVFInterrupts},
		{"rings of a VF", testVFRings},
	}
	for _, r := range tests {
		t.Run(r.name, func(t *testing.T) {
			d := open(t)
			t.Cleanup(func() { d.clear(t) })
			d.clear(t)
			r.run(t, d)
		})
	}
}

// clear brings the PF into the state that each test expects.
func (d TestPF) clear(t *testing.T) {
	t.Helper()
	done(t, "remove VFs", d.writePF("sriov_numvfs", "0"))
	done(t, "set autoprobe", d.writePF("sriov_drivers_autoprobe", "1"))
	done(t, "set the PF up", d.setUp(t, d.PCI, true))
	soon(t, "carrier of the PF", func() bool { return d.link(t, d.PCI).Carrier })
}

// createVFs creates n VFs without binding them.
func (d TestPF) createVFs(t *testing.T, n int) {
	t.Helper()
	done(t, "clear autoprobe", d.writePF("sriov_drivers_autoprobe", "0"))
	done(t, "make VFs", d.writePF("sriov_numvfs", fmt.Sprint(n)))
	soon(t, "driver "+d.VFDriver, func() bool { return d.exists("bus/pci/drivers/" + d.VFDriver) })
}

func (d TestPF) writePF(attr, value string) error { return d.write(d.PCI, attr, value) }

func (d TestPF) write(pci, attr, value string) error {
	return d.Kernel.WriteAttr("bus/pci/devices/"+pci+"/"+attr, value)
}

func (d TestPF) exists(name string) bool {
	_, err := fs.Lstat(d.Sys, name)
	return err == nil
}

// text reads an attribute of a function.
func (d TestPF) text(t *testing.T, pci, attr string) string {
	t.Helper()
	b, err := fs.ReadFile(d.Sys, path.Join("bus/pci/devices", pci, attr))
	done(t, "read "+attr, err)
	return strings.TrimSpace(string(b))
}

// vf is the PCI address of a VF.
func (d TestPF) vf(t *testing.T, i int) string {
	t.Helper()
	to, err := fs.ReadLink(d.Sys, path.Join("bus/pci/devices", d.PCI, fmt.Sprintf("virtfn%d", i)))
	done(t, "read virtfn", err)
	return path.Base(to)
}

// driver is what a function is bound to, "" for nothing.
func (d TestPF) driver(pci string) string {
	to, err := fs.ReadLink(d.Sys, path.Join("bus/pci/devices", pci, "driver"))
	if err != nil {
		return ""
	}
	return path.Base(to)
}

// netdev is a function's link in the host, if it has one now.
func (d TestPF) netdev(t *testing.T, pci string) (hw.Link, bool) {
	t.Helper()
	links, err := d.Kernel.Links()
	done(t, "list links", err)
	for _, l := range links {
		if d.exists(path.Join("bus/pci/devices", pci, "net", l.Name)) {
			return l, true
		}
	}
	return hw.Link{}, false
}

// link is netdev for a function that has one, or will soon.
func (d TestPF) link(t *testing.T, pci string) (l hw.Link) {
	t.Helper()
	soon(t, "a netdev of "+pci, func() (ok bool) {
		l, ok = d.netdev(t, pci)
		return ok
	})
	return l
}

func (d TestPF) setUp(t *testing.T, pci string, up bool) error {
	t.Helper()
	return d.Kernel.SetLink(d.link(t, pci).Index, hw.LinkUp, hw.Link{Up: up})
}

// set changes a VF, which has to succeed.
func (d TestPF) set(t *testing.T, vf int, want hw.VFState, attrs ...hw.VFAttr) {
	t.Helper()
	for _, a := range attrs {
		done(t, a.Op(want), d.Kernel.SetVF(d.link(t, d.PCI).Index, vf, a, want))
	}
}

// states is what the PF reports about its VFs.
func (d TestPF) states(t *testing.T) map[int]hw.VFState {
	t.Helper()
	s, err := d.Kernel.VFs(d.link(t, d.PCI).Index)
	done(t, "list VFs", err)
	return s
}

// bind binds a VF on demand and returns its netdev.
func (d TestPF) bind(t *testing.T, pci string) hw.Link {
	t.Helper()
	done(t, "set driver_override", d.write(pci, "driver_override", d.VFDriver))
	done(t, "probe", d.Kernel.WriteAttr("bus/pci/drivers_probe", pci))
	done(t, "clear driver_override", d.write(pci, "driver_override", ""))
	return d.link(t, pci)
}

func (d TestPF) unbind(t *testing.T, pci string) {
	t.Helper()
	done(t, "unbind", d.write(pci, "driver/unbind", pci))
}

func testVFCount(t *testing.T, d TestPF) {
	total := d.text(t, d.PCI, "sriov_totalvfs")
	refused(t, "more than there can be", d.writePF("sriov_numvfs", total+"0"), hw.ErrInvalid, syscall.ERANGE)
	refused(t, "less than none", d.writePF("sriov_numvfs", "-1"), hw.ErrInvalid)
	d.createVFs(t, 3)
	done(t, "as many as there are", d.writePF("sriov_numvfs", "3"))
	refused(t, "another number", d.writePF("sriov_numvfs", "5"), hw.ErrBusy, syscall.EBUSY)
	if got := d.text(t, d.PCI, "sriov_numvfs"); got != "3" || !d.exists("bus/pci/devices/"+d.vf(t, 2)) {
		t.Errorf("sriov_numvfs is %s, want 3", got)
	}
	last := d.vf(t, 2)
	done(t, "none", d.writePF("sriov_numvfs", "0"))
	if d.exists("bus/pci/devices/"+last) || len(d.states(t)) > 0 {
		t.Errorf("VFs are still there: %v", d.states(t))
	}
}

func testVFDefaults(t *testing.T, d TestPF) {
	d.createVFs(t, 2)
	for i, s := range d.states(t) {
		if want := (hw.VFState{Spoofchk: true}); s != want {
			t.Errorf("vf %d is %+v, want %+v", i, s, want)
		}
		pci := d.vf(t, i)
		if d.driver(pci) != "" || d.text(t, pci, "driver_override") != "(null)" {
			t.Errorf("vf %d has driver %q and override %q", i, d.driver(pci), d.text(t, pci, "driver_override"))
		}
		if !d.exists("bus/pci/devices/" + pci + "/physfn") {
			t.Errorf("vf %d has no physfn", i)
		}
	}
	if n := len(d.states(t)); n != 2 {
		t.Errorf("the PF lists %d VFs, want 2", n)
	}
	if counters, err := d.Kernel.VFCounters(d.link(t, d.PCI).Index); len(counters) != 2 || counters[0].Counted() || err != nil {
		t.Errorf("counters of two VFs that have sent nothing are %v, %v", counters, err)
	}
}

func testVFProbe(t *testing.T, d TestPF) {
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	bind, unbind := "bus/pci/drivers/"+d.VFDriver+"/bind", "bus/pci/drivers/"+d.VFDriver+"/unbind"
	if err := d.Kernel.WriteAttr(bind, vf); err == nil {
		t.Error("bound without an override")
	}
	done(t, "probe without an override, which does nothing", d.Kernel.WriteAttr("bus/pci/drivers_probe", vf))
	if got := d.driver(vf); got != "" {
		t.Errorf("bound to %s without an override", got)
	}
	refused(t, "unbind what is not bound", d.Kernel.WriteAttr(unbind, vf), hw.ErrNotFound, syscall.ENODEV)
	done(t, "set an override that no driver has", d.write(vf, "driver_override", "no_such_driver"))
	done(t, "probe", d.Kernel.WriteAttr("bus/pci/drivers_probe", vf))
	refused(t, "bind against the override", d.Kernel.WriteAttr(bind, vf), hw.ErrNotFound, syscall.ENODEV)
	d.bind(t, vf)
	if got := d.driver(vf); got != d.VFDriver {
		t.Errorf("bound to %q", got)
	}
	if got := d.text(t, vf, "driver_override"); got != "(null)" {
		t.Errorf("override is %s after it was cleared", got)
	}
	refused(t, "bind what is bound", d.Kernel.WriteAttr(bind, vf), hw.ErrBusy, syscall.EBUSY)
	d.unbind(t, vf)
	if l, ok := d.netdev(t, vf); ok || d.driver(vf) != "" {
		t.Errorf("after unbind it has driver %q and netdev %+v", d.driver(vf), l)
	}
}

func testVFSettings(t *testing.T, d TestPF) {
	d.createVFs(t, 2)
	was := d.states(t)[0]
	want := hw.VFState{MAC: "02:aa:00:00:00:01", VLAN: hw.VLAN{ID: 100, QoS: 3}, Trust: true}
	d.set(t, 1, want, hw.VFMAC, hw.VFVLAN, hw.VFSpoofchk, hw.VFTrust)
	if got := d.states(t); got[1] != want || got[0] != was {
		t.Errorf("VFs are %+v, want the second to be %+v", got, want)
	}
	want = hw.VFState{Spoofchk: true}
	d.set(t, 1, want, hw.VFMAC, hw.VFVLAN, hw.VFSpoofchk, hw.VFTrust)
	if got := d.states(t); got[1] != want {
		t.Errorf("taken back it is %+v, want %+v", got[1], want)
	}
	d.set(t, 1, hw.VFState{VLAN: hw.VLAN{ID: 4095}}, hw.VFVLAN) // igb accepts 4095, which no switch does
}

func testVFSwitchdev(t *testing.T, d TestPF) {
	if on, err := d.Kernel.Switchdev(d.PCI); on || err != nil {
		t.Errorf("%t, %v", on, err)
	}
}

func testVFRefused(t *testing.T, d TestPF) {
	d.createVFs(t, 2)
	pf := d.link(t, d.PCI).Index
	want := hw.VFState{MAC: "02:aa:00:00:00:01", VLAN: hw.VLAN{ID: 5}, Trust: true}
	for _, a := range []hw.VFAttr{hw.VFMAC, hw.VFVLAN, hw.VFSpoofchk, hw.VFTrust} {
		refused(t, "a VF that there is not", d.Kernel.SetVF(pf, 2, a, want), hw.ErrInvalid, syscall.EINVAL)
	}
	refused(t, "vlan 4096", d.Kernel.SetVF(pf, 0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 4096}}), hw.ErrInvalid, syscall.EINVAL)
	refused(t, "qos 8", d.Kernel.SetVF(pf, 0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 5, QoS: 8}}), hw.ErrInvalid, syscall.EINVAL)
	multicast := hw.MAC("01:00:5e:00:00:01")
	refused(t, "a multicast MAC", d.Kernel.SetVF(pf, 0, hw.VFMAC, hw.VFState{MAC: multicast}), hw.ErrInvalid, syscall.EINVAL)
	l := d.bind(t, d.vf(t, 0))
	refused(t, "a VF of a VF", d.Kernel.SetVF(l.Index, 0, hw.VFTrust, hw.VFState{Trust: true}), hw.ErrUnsupported)
	if vfs, err := d.Kernel.VFs(l.Index); err != nil || vfs != nil {
		t.Errorf("VFs of a VF are %v (%v)", vfs, err)
	}
}

func testVFMAC(t *testing.T, d TestPF) {
	const a, b, c = hw.MAC("02:aa:00:00:00:01"), hw.MAC("02:aa:00:00:00:02"), hw.MAC("02:aa:00:00:00:03")
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	want := func(what string, netdev, pfSays hw.MAC) {
		t.Helper()
		if l, s := d.link(t, vf), d.states(t)[0]; l.MAC != netdev || s.MAC != pfSays {
			t.Errorf("%s: netdev has %s and the PF says %s, want %s and %s", what, l.MAC, s.MAC, netdev, pfSays)
		}
	}
	change := func(mac hw.MAC) error { return d.Kernel.SetLink(d.link(t, vf).Index, hw.LinkMAC, hw.Link{MAC: mac}) }
	d.set(t, 0, hw.VFState{MAC: a}, hw.VFMAC)
	if l := d.bind(t, vf); l.PermMAC != a {
		t.Errorf("permanent MAC is %s, want %s", l.PermMAC, a)
	}
	want("bound", a, a)
	refused(t, "untrusted, change the netdev's", change(c), hw.ErrInvalid, syscall.EADDRNOTAVAIL)
	want("refused", a, a)
	d.set(t, 0, hw.VFState{MAC: b}, hw.VFMAC)
	want("set by the PF while bound", a, b)
	refused(t, "untrusted, change the netdev's to a third", change(c), hw.ErrInvalid, syscall.EADDRNOTAVAIL)
	want("refused again", a, b)
	d.unbind(t, vf)
	d.bind(t, vf)
	want("bound again", b, b)
	d.set(t, 0, hw.VFState{Trust: true}, hw.VFTrust)
	done(t, "trusted, change the netdev's", change(c))
	want("trusted", c, c)
	d.unbind(t, vf)
	d.bind(t, vf)
	want("trusted, bound again", c, c)
}

func testVFDrawsMAC(t *testing.T, d TestPF) {
	const a = hw.MAC("02:aa:00:00:00:01")
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	first := d.bind(t, vf)
	if s := d.states(t)[0]; first.MAC == "" || first.PermMAC != first.MAC || s.MAC != first.MAC {
		t.Errorf("netdev has %s (permanent %q), the PF says %s", first.MAC, first.PermMAC, s.MAC)
	}
	done(t, "change the netdev's", d.Kernel.SetLink(first.Index, hw.LinkMAC, hw.Link{MAC: a}))
	if s := d.states(t)[0]; s.MAC != a {
		t.Errorf("the PF says %s, want the VF's choice %s", s.MAC, a)
	}
	d.unbind(t, vf)
	if s := d.states(t)[0]; s.MAC != a {
		t.Errorf("the PF says %s of a VF that is not bound, want its last choice %s", s.MAC, a)
	}
	if l := d.bind(t, vf); l.MAC == a || l.MAC == first.MAC {
		t.Errorf("bound again it has %s once more", l.MAC)
	}
	d.set(t, 0, hw.VFState{MAC: hw.MAC("")}, hw.VFMAC)
	if s := d.states(t)[0]; s.MAC != "" {
		t.Errorf("cleared, the PF says %s", s.MAC)
	}
}

func testVFCarrier(t *testing.T, d TestPF) {
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	if l := d.bind(t, vf); l.Up || l.Carrier {
		t.Errorf("freshly bound: %+v", l)
	}
	done(t, "set up", d.setUp(t, vf, true))
	soon(t, "carrier", func() bool { return d.link(t, vf).Carrier })
	done(t, "set the PF down", d.setUp(t, d.PCI, false))
	soon(t, "no carrier", func() bool { return !d.link(t, vf).Carrier })
	done(t, "set the PF up", d.setUp(t, d.PCI, true))
	within(t, 30*time.Second, "carrier again", func() bool { return d.link(t, vf).Carrier }) // igb needs 10 s
	done(t, "set down", d.setUp(t, vf, false))
	if l := d.link(t, vf); l.Up || l.Carrier {
		t.Errorf("set down: %+v", l)
	}
}

// testPFReset: the reset attribute of a PF. It is set down and up for its driver to set it up again.
func testPFReset(t *testing.T, d TestPF) {
	masters := func(pci string) bool { return d.text(t, pci, "config")[4]&(1<<2) != 0 }
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	d.bind(t, vf)
	if !masters(d.PCI) || !masters(vf) {
		t.Errorf("they master the bus: the PF %t, the VF %t", masters(d.PCI), masters(vf))
	}
	done(t, "reset the PF", d.writePF("reset", "1"))
	for _, up := range []bool{false, true} {
		done(t, "set the PF down and up", d.setUp(t, d.PCI, up))
	}
	soon(t, "carrier of the PF", func() bool { return d.link(t, d.PCI).Carrier })
	if !masters(d.PCI) || masters(vf) {
		t.Errorf("after the reset they master the bus: the PF %t, the VF %t", masters(d.PCI), masters(vf))
	}
	d.unbind(t, vf)
	d.bind(t, vf)
	if !masters(vf) {
		t.Error("bound again it does not master the bus")
	}
	done(t, "set up", d.setUp(t, vf, true))
	soon(t, "carrier", func() bool { return d.link(t, vf).Carrier })
}

func testVFDead(t *testing.T, d TestPF) {
	const a = hw.MAC("02:aa:00:00:00:01")
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	d.set(t, 0, hw.VFState{MAC: a}, hw.VFMAC)
	done(t, "set the PF down", d.setUp(t, d.PCI, false))
	if l := d.bind(t, vf); l.MAC == a || l.MAC == "" {
		t.Errorf("bound with its PF down it has MAC %q", l.MAC)
	}
	done(t, "set the PF up", d.setUp(t, d.PCI, true))
	soon(t, "carrier of the PF", func() bool { return d.link(t, d.PCI).Carrier })
	d.unbind(t, vf)
	if l := d.bind(t, vf); l.MAC != a {
		t.Errorf("bound with its PF up it has MAC %s, want %s", l.MAC, a)
	}
	done(t, "set up", d.setUp(t, vf, true))
	soon(t, "carrier", func() bool { return d.link(t, vf).Carrier })
}
