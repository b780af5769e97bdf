package hwtest_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// igb is a machine with one igb that has no VFs yet.
func igb(t *testing.T, more ...func(*hwtest.PF)) *hwtest.Kernel {
	t.Helper()
	pf := hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, Up: true}
	for _, m := range more {
		m(&pf)
	}
	k := hwtest.New(t)
	k.AddPF(pf)
	return k
}

const pfDir = "bus/pci/devices/0000:01:00.0/"

func write(t *testing.T, k *hwtest.Kernel, path, value string) {
	t.Helper()
	if err := k.WriteAttr(path, value); err != nil {
		t.Fatalf("write %s to %s: %v", value, path, err)
	}
}

// read is an attribute or the name that a link leads to.
func read(t *testing.T, k *hwtest.Kernel, path string) string {
	t.Helper()
	if to, err := fs.ReadLink(k.Sys, path); err == nil {
		return filepath.Base(to)
	}
	b, err := fs.ReadFile(k.Sys, path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// names lists a directory of the tree.
func names(t *testing.T, k *hwtest.Kernel, path string) []string {
	t.Helper()
	es, err := fs.ReadDir(k.Sys, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var ns []string
	for _, e := range es {
		ns = append(ns, e.Name())
	}
	return ns
}

func wantErr(t *testing.T, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("error is %v, want one that matches %v", err, w)
		}
	}
}

func TestCountOfVFs(t *testing.T) {
	k := igb(t)
	wantErr(t, k.WriteAttr(pfDir+"sriov_numvfs", "8"), hw.ErrInvalid, syscall.ERANGE)
	write(t, k, pfDir+"sriov_numvfs", "3")
	write(t, k, pfDir+"sriov_numvfs", "3")
	wantErr(t, k.WriteAttr(pfDir+"sriov_numvfs", "5"), hw.ErrBusy, syscall.EBUSY)
	if got := read(t, k, pfDir+"sriov_numvfs"); got != "3" {
		t.Errorf("sriov_numvfs is %s, want 3", got)
	}
	for i, addr := range []string{"0000:01:10.0", "0000:01:10.2", "0000:01:10.4"} {
		if got := read(t, k, pfDir+"virtfn"+string(rune('0'+i))); got != addr {
			t.Errorf("virtfn%d is %s, want %s", i, got, addr)
		}
		if got := read(t, k, "bus/pci/devices/"+addr+"/driver"); got != "igbvf" {
			t.Errorf("%s has driver %s, want igbvf", addr, got)
		}
	}
	if got := read(t, k, "class/net/ens1f0v1/device"); got != "0000:01:10.2" {
		t.Errorf("ens1f0v1 is on %s", got)
	}
	if err := k.MoveToNS("c1", "ens1f0v1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if got := names(t, k, "bus/pci/devices/0000:01:10.2/net"); len(got) > 0 {
		t.Errorf("a VF that is away is seen as %s", got)
	}
	write(t, k, pfDir+"sriov_numvfs", "0")
	if got := k.InNS("c1").Links(); len(got) > 0 {
		t.Errorf("the container has %v after its VF has been removed", got)
	}
	if got := names(t, k, "bus/pci/devices"); !cmp.Equal(got, []string{"0000:01:00.0"}) {
		t.Errorf("left on the bus: %s", got)
	}
}

func TestProbeOnDemand(t *testing.T) {
	k := igb(t)
	const vf = "bus/pci/devices/0000:01:10.0/"
	write(t, k, pfDir+"sriov_drivers_autoprobe", "0")
	write(t, k, pfDir+"sriov_numvfs", "1")
	wantErr(t, k.WriteAttr("bus/pci/drivers/igbvf/bind", "0000:01:10.0"), syscall.ENODEV)
	write(t, k, "bus/pci/drivers_probe", "0000:01:10.0")
	if got := names(t, k, vf+"net"); len(got) > 0 {
		t.Errorf("probed against the PF's will: %s", got)
	}
	write(t, k, vf+"driver_override", "igbvf")
	write(t, k, "bus/pci/drivers_probe", "0000:01:10.0")
	if got := names(t, k, vf+"net"); !cmp.Equal(got, []string{"ens1f0v0"}) {
		t.Errorf("net is %s, want ens1f0v0", got)
	}
	wantErr(t, k.WriteAttr("bus/pci/drivers/igbvf/bind", "0000:01:10.0"), syscall.EBUSY, hw.ErrBusy)
	write(t, k, vf+"driver/unbind", "0000:01:10.0")
	wantErr(t, k.WriteAttr("bus/pci/drivers/igbvf/unbind", "0000:01:10.0"), syscall.ENODEV, hw.ErrNotFound)
	write(t, k, vf+"driver_override", "\n")
	if got := read(t, k, vf+"driver_override"); got != "(null)" {
		t.Errorf("driver_override is %s, want (null)", got)
	}
	wantErr(t, k.WriteAttr(vf+"numa_node", "1"), syscall.EACCES, fs.ErrPermission)
	wantErr(t, k.WriteAttr(vf+"sriov_numvfs", "1"), syscall.ENOENT, hw.ErrNotFound)
	wantErr(t, k.WriteAttr("../tmp/attr", "1"), hw.ErrInvalid)
}

func TestUdevAndLateDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hwtest.New(t)
		k.UdevAfter = 200 * time.Millisecond
		k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 2, CarrierAfter: 3 * time.Second,
			VFCarrierAfter: 100 * time.Millisecond, VFDriverAfter: time.Second, ProbeTakes: 50 * time.Millisecond})
		const vf = "bus/pci/devices/0000:01:10.0/"
		up := true
		if err := k.SetLink(k.Link("ens1f0").Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
		write(t, k, pfDir+"sriov_numvfs", "1")
		if got := names(t, k, "bus/pci/drivers"); !cmp.Equal(got, []string{"igb"}) {
			t.Errorf("drivers are %s", got)
		}
		time.Sleep(1055 * time.Millisecond)
		if got := names(t, k, vf+"net"); !cmp.Equal(got, []string{"eth0"}) {
			t.Errorf("net is %s right after the probe, want eth0", got)
		}
		if got := read(t, k, vf+"net/eth0/name_assign_type"); got != "1" {
			t.Errorf("name_assign_type is %s, want 1", got)
		}
		time.Sleep(200 * time.Millisecond)
		if got := read(t, k, vf+"net/ens1f0v0/name_assign_type"); got != "4" {
			t.Errorf("name_assign_type is %s, want 4", got)
		}
		if err := k.SetLink(k.Link("ens1f0v0").Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if k.Link("ens1f0").Carrier || k.Link("ens1f0v0").Carrier {
			t.Error("carrier before the PF has it")
		}
		time.Sleep(time.Second)
		if !k.Link("ens1f0").Carrier || !k.Link("ens1f0v0").Carrier {
			t.Error("no carrier after the PF should have it")
		}
	})
}

func TestMACOfAVF(t *testing.T) {
	const a, b = hw.MAC("02:aa:00:00:00:01"), hw.MAC("02:aa:00:00:00:02")
	k := igb(t, func(c *hwtest.PF) { c.VFs = 1 })
	pf := k.Link("ens1f0").Index
	set := func(mac hw.MAC) error { return k.SetLink(k.Link("ens1f0v0").Index, hw.LinkMAC, hw.Link{MAC: mac}) }
	admin := func(mac hw.MAC) {
		t.Helper()
		if err := k.SetVF(pf, 0, hw.VFMAC, hw.VFState{MAC: mac}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(netdev, pfSays hw.MAC) {
		t.Helper()
		vfs, err := k.VFs(pf)
		if err != nil || vfs[0].MAC != pfSays || k.Link("ens1f0v0").MAC != netdev {
			t.Errorf("netdev has %s, PF says %+v (%v), want %s and %s", k.Link("ens1f0v0").MAC, vfs, err, netdev, pfSays)
		}
	}
	if err := set(b); err != nil {
		t.Errorf("a VF without a MAC from its PF may choose: %v", err)
	}
	want(b, b)
	admin(a)
	want(b, a)
	wantErr(t, set("02:aa:00:00:00:03"), syscall.EADDRNOTAVAIL, hw.ErrInvalid)
	write(t, k, "bus/pci/drivers/igbvf/unbind", "0000:01:10.0")
	write(t, k, "bus/pci/drivers/igbvf/bind", "0000:01:10.0")
	want(a, a)
	trust := true
	if err := k.SetVF(pf, 0, hw.VFTrust, hw.VFState{Trust: trust}); err != nil {
		t.Fatal(err)
	}
	if err := set(b); err != nil {
		t.Errorf("a trusted VF may choose: %v", err)
	}
	want(b, b)
	admin("")
	want(b, "")
	wantErr(t, k.SetVF(pf, 1, hw.VFTrust, hw.VFState{Trust: trust}), syscall.EINVAL, hw.ErrInvalid)
	wantErr(t, k.SetVF(k.Link("lo").Index, 0, hw.VFTrust, hw.VFState{Trust: trust}), syscall.EOPNOTSUPP, hw.ErrUnsupported)
}

func TestVFProbedWithoutItsPF(t *testing.T) {
	k := igb(t, func(c *hwtest.PF) {
		c.Up, c.VFs = false, 1
		c.VFMAC = func(int) hw.MAC { return "02:aa:00:00:00:01" }
	})
	up := true
	for _, name := range []string{"ens1f0", "ens1f0v0"} {
		if err := k.SetLink(k.Link(name).Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
	}
	if l := k.Link("ens1f0v0"); l.Carrier || l.MAC == "02:aa:00:00:00:01" {
		t.Errorf("a VF probed with its PF down works: %+v", l)
	}
	write(t, k, "bus/pci/drivers/igbvf/unbind", "0000:01:10.0")
	write(t, k, "bus/pci/drivers/igbvf/bind", "0000:01:10.0")
	if err := k.SetLink(k.Link("ens1f0v0").Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
		t.Fatal(err)
	}
	if l := k.Link("ens1f0v0"); !l.Carrier || l.MAC != "02:aa:00:00:00:01" {
		t.Errorf("a VF bound again with its PF up does not work: %+v", l)
	}
}

func TestWayHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := igb(t, func(c *hwtest.PF) { c.VFs = 3 })
		k.AddVeth("veth0", "veth1")
		before := k.String()
		for _, m := range [][3]string{{"c1", "ens1f0v0", "eth0"}, {"c2", "ens1f0v1", "eth0"}, {"c1", "veth0", "eth1"}} {
			if err := k.MoveToNS(m[0], m[1], m[2]); err != nil {
				t.Fatal(err)
			}
		}
		mtu := 1400
		if err := k.InNS("c1").SetLink("eth0", hw.Link{MTU: mtu}, hw.LinkMTU); err != nil {
			t.Fatal(err)
		}
		if err := k.MoveHome("c1", "eth1", "ens1f0v2"); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("moved home over a name that is in use: %v", err)
		}
		k.KillNS("c1", time.Second)
		k.KillNS("c2", hwtest.NotYet)
		time.Sleep(2 * time.Second)
		l := k.Link("eth0")
		if l.MTU != 1400 || l.Up || !cmp.Equal(l.AltNames, []string{"ens1f0v0"}) {
			t.Errorf("came home as %+v", l)
		}
		links, err := k.Links()
		if err != nil || len(links) != 4 {
			t.Errorf("links are %v (%v), want lo, the PF, ens1f0v0 and ens1f0v2", links, err)
		}
		k.ReleaseNS("c2")
		ns, back, ok := k.Netdev("0000:01:10.2")
		if !ok || ns != "" || !strings.HasPrefix(back.Name, "dev") {
			t.Errorf("the second eth0 came home as %+v in %q", back, ns)
		}
		wantErr(t, k.SetLink(l.Index, hw.LinkName, hw.Link{Name: "ens1f0v0"}), syscall.EEXIST, fs.ErrExist)
		for _, err := range []error{
			k.RemoveAltName(l.Index, "ens1f0v0"),
			k.SetLink(l.Index, hw.LinkName, hw.Link{Name: "ens1f0v0"}),
			k.SetLink(l.Index, hw.LinkMTU, hw.Link{MTU: 1500}),
			k.RemoveAltName(back.Index, "ens1f0v1"),
			k.SetLink(back.Index, hw.LinkName, hw.Link{Name: "ens1f0v1"}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		k.AddVeth("veth0", "veth1")
		macs := func(s string) string { // a new pair has new MACs
			return strings.Join(strings.Split(s, "veth")[:1], "") + s[strings.Index(s, "pf "):]
		}
		if diff := cmp.Diff(macs(before), macs(k.String())); diff != "" {
			t.Errorf("not as before (-before +after):\n%s", diff)
		}
	})
}

func TestFaults(t *testing.T) {
	k := igb(t)
	pf := k.Link("ens1f0").Index
	boom := errors.New("boom")
	want := hw.Link{MTU: 9000, TxQLen: 500}
	k.FailAt(2, boom)
	if err := k.SetLink(pf, hw.LinkMTU, want); err != nil {
		t.Fatal(err)
	}
	if err := k.SetLink(pf, hw.LinkTxQLen, want); !errors.Is(err, boom) {
		t.Errorf("error is %v, want %v", err, boom)
	}
	if l := k.Link("ens1f0"); l.MTU != 9000 || l.TxQLen != 1000 {
		t.Errorf("the wrong call failed: %+v", l)
	}
	k.FailFrom(1, syscall.EBUSY)
	write(t, k, pfDir+"sriov_numvfs", "1")
	wantErr(t, k.SetLink(pf, hw.LinkTxQLen, want), hw.ErrBusy)
	wantErr(t, k.AddAddr(pf, hw.Addr{CIDR: "192.0.2.1/24"}), hw.ErrBusy)
	calls := []string{"set ens1f0: set mtu 9000", "set ens1f0: set txqueuelen 500", "write " + pfDir + "sriov_numvfs 1",
		"set ens1f0: set txqueuelen 500", "add address 192.0.2.1/24 to ens1f0"}
	if diff := cmp.Diff(calls, k.Calls()); diff != "" {
		t.Error(diff)
	}
}

func TestVirtio(t *testing.T) {
	k := igb(t, func(c *hwtest.PF) { c.Behaviour, c.VFs = hwtest.Virtio(), 2 })
	if got := read(t, k, "class/net/ens1f0/device"); got != "virtio0" {
		t.Errorf("device of ens1f0 is %s, want virtio0", got)
	}
	if got := names(t, k, pfDir+"virtfn1/virtio2/net"); !cmp.Equal(got, []string{"ens1f0v1"}) {
		t.Errorf("netdev of the second VF is %s", got)
	}
	if vfs, err := k.VFs(k.Link("ens1f0").Index); vfs != nil || err != nil {
		t.Errorf("a virtio PF reports VFs: %v, %v", vfs, err)
	}
	trust := true
	wantErr(t, k.SetVF(k.Link("ens1f0").Index, 0, hw.VFTrust, hw.VFState{Trust: trust}), hw.ErrUnsupported)
}

func TestAddressesAndRoutes(t *testing.T) {
	k := hwtest.New(t)
	k.AddVeth("veth0", "veth1")
	index := k.Link("veth0").Index
	up, down := true, false
	wantErr(t, k.AddRoute(index, hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.254"}), syscall.ENETDOWN, hw.ErrDeviceFault)
	if err := k.SetLink(index, hw.LinkUp, hw.Link{Up: up}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, k.AddRoute(index, hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.254"}), syscall.ENETUNREACH)
	k.AddAddrs("veth0", "192.0.2.1/24", "2001:db8::1/64")
	k.AddRoutes("veth0", hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.254"}, hw.Route{Dst: "198.51.100.0/24", Scope: 253})
	if rs, err := k.Routes(0); err != nil || len(rs) != 2 || rs[0].Dst != "198.51.100.0/24" {
		t.Errorf("routes are %v (%v), want the one without a gateway first", rs, err)
	}
	if err := k.SetLink(index, hw.LinkUp, hw.Link{Up: down}); err != nil {
		t.Fatal(err)
	}
	if rs, err := k.Routes(index); err != nil || len(rs) > 0 {
		t.Errorf("routes of a link that is down: %v (%v)", rs, err)
	}
	as, err := k.Addrs(index)
	if diff := cmp.Diff([]hw.Addr{{CIDR: "192.0.2.1/24", Label: "veth0"}}, as); err != nil || diff != "" {
		t.Errorf("addresses of a link that is down (%v): %s", err, diff)
	}
}

// TestPresets: every preset says where it is known from, and only one that was read in sources or composed has words for it.
func TestPresets(t *testing.T) {
	presets := []hwtest.Behaviour{hwtest.IGB(), hwtest.AllVFOps(), hwtest.IPoIB(), hwtest.IPoIBVendorTree()}
	for _, m := range hwtest.Makes(t) {
		presets = append(presets, m.PF.Behaviour)
	}
	for _, b := range presets {
		if b.Source.Kind == 0 || (b.Source.Kind == hwtest.SourceLab) != (b.Source.Files == "") {
			t.Errorf("the source is %+v", b.Source)
		}
	}
}
