package hw_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// open returns a host with a fake kernel.
func open(t *testing.T, k *hwtest.Kernel) *hw.Host {
	t.Helper()
	return openWith(t, k, k)
}

func openWith(t *testing.T, k *hwtest.Kernel, kernel hw.Kernel) *hw.Host {
	t.Helper()
	h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: kernel, Boot: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// igb is a PF with two VFs from boot.
func igb() hwtest.PF {
	return hwtest.PF{Behaviour: hwtest.IGB(), Name: "ens1f0", PCI: "0000:01:00.0", MAC: "52:54:00:aa:00:00", TotalVFs: 7, VFs: 2, Up: true}
}

// wantError compares the whole text of an error.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error is\n  %v\nwant\n  %s", err, want)
	}
}

// TestFindByAnyName: a device is found by each of its names.
func TestFindByAnyName(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	pf := igb()
	pf.PCI = "0000:0a:00.0"
	k.AddPF(pf)
	k.AddPF(hwtest.PF{Name: "far0", PCI: "10000:0b:00.1", Driver: "e1000e"})
	k.GiveAltName("ens1f0", "a-name-that-is-longer-than-15")
	k.AddVeth("tap0", "tap1")
	h := open(t, k)
	for ref, id := range map[string]hw.ID{
		"ens1f0":                        "0000:0a:00.0",
		"a-name-that-is-longer-than-15": "0000:0a:00.0",
		"0000:0a:00.0":                  "0000:0a:00.0",
		"0000:0A:00.0":                  "0000:0a:00.0",
		"0a:00.0":                       "0000:0a:00.0",
		"0A:00.0":                       "0000:0a:00.0",
		"10000:0b:00.1":                 "10000:0b:00.1",
		"ens1f0v1":                      "0000:0a:10.2",
		"tap1":                          hw.ID(fmt.Sprintf("link-%d-%s", k.Link("tap1").Index, k.Link("tap1").MAC)),
	} {
		n, err := h.Netdev(ref)
		if err != nil || n.ID != id {
			t.Errorf("%s is %s, %v; want %s", ref, n.ID, err, id)
		}
		if again, err := h.Find(id); err != nil || again.Index != n.Index {
			t.Errorf("%s is found as %s, %v; want %s", id, again.Name, err, n.Name)
		}
	}
	for ref, want := range map[string]string{
		"ENS1F0":       "ENS1F0: no such device",
		"0000:0a:00.7": "0000:0a:00.7: no such device",
		"0a:00.8":      "0a:00.8: no such device",
		"":             "no such device",
	} {
		_, err := h.Netdev(ref)
		wantError(t, err, want)
	}
}

// TestTwoPorts: a PCI function may have several netdevs, distinguished by their port.
func TestTwoPorts(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "port0", PCI: "0000:04:00.0", Driver: "mlx4_core"})
	k.AddOn("0000:04:00.0", "", 1, hw.Link{Name: "port1"})
	h := open(t, k)
	_, err := h.Netdev("04:00.0")
	wantError(t, err, "0000:04:00.0: it has several netdevs (port0, port1); name one of them")
	for name, id := range map[string]hw.ID{"port0": "0000:04:00.0", "port1": "0000:04:00.0/1"} {
		if n, err := h.Netdev(name); err != nil || n.ID != id || n.Driver != "mlx4_core" {
			t.Errorf("%s is %s of %s, %v; want %s", name, n.ID, n.Driver, err, id)
		}
		if n, err := h.Find(id); err != nil || n.Name != name {
			t.Errorf("%s is %s, %v; want %s", id, n.Name, err, name)
		}
	}
	for _, other := range []hw.ID{"", "000:04:00.0", "0000:04:00.8", "0000:04:00", "0000:4:000.0", "0000:0G:00.0", "0000:04:00.00", "0000-04:00.0", "made:a"} {
		if pci := other.PCI(); pci != "" {
			t.Errorf("the PCI address of %q is %q", other, pci)
		}
	}
	if pci := hw.ID("0000:04:00.0/1").PCI(); pci != "0000:04:00.0" {
		t.Errorf("the function of port 1 is %q", pci)
	}
}

// TestSubfunctions: a netdev of a device on a PCI function, such as a subfunction, is not the function's own, and is
// found like one without a PCI address.
func TestSubfunctions(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "enp3s0f0np0", PCI: "0000:03:00.0", Driver: "mlx5_core", MAC: "52:54:00:cc:00:00"})
	k.AddPF(hwtest.PF{Name: "ens9", PCI: "0000:00:14.0", Driver: "xhci_hcd"})
	k.DelLink("ens9") // an xhci controller has none itself
	for i, name := range []string{"enp3s0f0s88", "enp3s0f0s89"} {
		k.AddSubfunction("0000:03:00.0", 4+i, 88+i, hw.Link{Name: name, MAC: "02:00:00:00:00:55"})
	}
	for name, on := range map[string]string{"usb0": "usb1/1-1/1-1:1.0", "usb1": "usb1/1-2/1-2:1.0"} {
		k.AddOn("0000:00:14.0", on, 0, hw.Link{Name: name, MAC: "02:00:00:00:00:55"})
	}
	h := open(t, k)
	for _, name := range []string{"enp3s0f0s88", "enp3s0f0s89", "usb0", "usb1"} {
		n, err := h.Netdev(name)
		if err != nil || n.ID.IsPCI() || n.Driver != "" {
			t.Errorf("%s is %s of %q, %v", name, n.ID, n.Driver, err)
		}
		if found, err := h.Find(n.ID); err != nil || found.Name != name {
			t.Errorf("%s is found as %s, %v", name, found.Name, err)
		}
		for _, err := range []error{h.CheckIdentity(n), h.CheckUnique(n)} {
			if err != nil {
				t.Error(err)
			}
		}
		why := "it is not a PCI device, so it has no vfs; use another mode, such as passthrough"
		if strings.HasPrefix(name, "enp") {
			why = "it is a sub-function of 0000:03:00.0, which has no vfs; hand over its netdev " + name +
				" with mode=passthrough, or have macvlans on that with mode=macvlan"
		}
		_, err = h.PF(name)
		wantError(t, err, name+": "+why)
	}
	if n, err := h.Netdev("03:00.0"); err != nil || n.Name != "enp3s0f0np0" || h.CheckUnique(n) != nil {
		t.Errorf("the function's own is %s, %v, %v", n.Name, err, h.CheckUnique(n))
	}
	_, err := h.Netdev("00:14.0")
	wantError(t, err, "0000:00:14.0: its driver xhci_hcd has created no netdev for it")
}

// TestDerived: sub-functions and vDPA devices are listed with what they are on, and who names one is told what to use instead. Other parts of
// a driver on the same bus are none.
func TestDerived(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "enp3s0f0np0", PCI: "0000:03:00.0", Driver: "mlx5_core", VFDriver: "mlx5_core", TotalVFs: 4, VFs: 2})
	k.AddSubfunction("0000:03:00.0", 4, 88, hw.Link{Name: "enp3s0f0s88"})
	k.AddSubfunction("0000:03:00.0", 5, 89, hw.Link{Name: "enp3s0f0s89"})
	k.AddSubfunction("0000:03:00.0", 6, 90, hw.Link{})
	k.AddVDPA("0000:03:10.0", "vdpa0", "vhost_vdpa", hw.Link{})
	k.AddVDPA("0000:03:10.2", "vdpa1", "virtio_vdpa", hw.Link{Name: "a0"})
	if err := k.MoveToNS("c", "enp3s0f0s89", "eth0"); err != nil {
		t.Fatal(err)
	}
	h := open(t, k)
	all, err := h.Derived()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range all {
		got = append(got, fmt.Sprintf("%s %q of %s, driver %q, netdev %q", d.Name, d.Number, d.PCI, d.Driver, d.Netdev.Name))
		if n, err := h.Netdev(d.Name); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s is %v, %v", d.Name, n, err)
		} else {
			got = append(got, err.Error())
		}
	}
	const sf, vdpa = ": it is a sub-function of 0000:03:00.0, which has no vfs; ", ": it is a vdpa device of 0000:03:10."
	want := []string{
		`mlx5_core.sf.4 "88" of 0000:03:00.0, driver "mlx5_core.sf", netdev "enp3s0f0s88"`,
		"mlx5_core.sf.4" + sf + "hand over its netdev enp3s0f0s88 with mode=passthrough, or have macvlans on that with mode=macvlan",
		`mlx5_core.sf.5 "89" of 0000:03:00.0, driver "mlx5_core.sf", netdev ""`,
		"mlx5_core.sf.5" + sf + "it has no netdev in the host: that is in another network namespace, or switched off by a parameter of its driver",
		`mlx5_core.sf.6 "90" of 0000:03:00.0, driver "", netdev ""`,
		"mlx5_core.sf.6" + sf + "it has no driver, and thus no netdev, until its port is active",
		`vdpa0 "" of 0000:03:10.0, driver "vhost_vdpa", netdev ""`,
		"vdpa0" + vdpa + "0, which has no vfs; it is bound to vhost_vdpa, for a virtual machine, and has no netdev; use a vf of the nic",
		`vdpa1 "" of 0000:03:10.2, driver "virtio_vdpa", netdev "a0"`,
		"vdpa1" + vdpa + "2, which has no vfs; hand over its netdev a0 with mode=passthrough, or have macvlans on that with mode=macvlan",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	pf, err := h.PF("enp3s0f0np0")
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := h.VFs(pf)
	if err != nil || len(vfs) != 2 {
		t.Fatalf("%v, %v", vfs, err)
	}
	for i, vf := range vfs {
		if want := fmt.Sprintf("has the vdpa device vdpa%d", i); vf.InUse() != want {
			t.Errorf("%s is %q, want %q", vf, vf.InUse(), want)
		}
	}
}

// TestCheckUnique: a NIC in switchdev mode has the ports of its switch on the function of its PF, all with port 0. A
// netdev that would be found in place of another is refused, and the PF's own netdev is found by the PCI address,
// whatever the names of the others.
func TestCheckUnique(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "port0", PCI: "0000:04:00.0", Driver: "mlx5_core"})
	k.AddOn("0000:04:00.0", "", 1, hw.Link{Name: "port1"})
	k.AddOn("0000:04:00.0", "", 0, hw.Link{Name: "a-vf"})
	h := open(t, k)
	const why = ", on the same pci function; ports of a nic in switchdev mode are not lent"
	for name, want := range map[string]struct{ identify, sole string }{
		"port0": {"", "port0: cannot be told from a-vf" + why},
		"port1": {"", ""},
		"a-vf":  {"a-vf: cannot be told from port0" + why, "a-vf: cannot be told from port0" + why},
	} {
		n, err := h.Netdev(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			err  error
			want string
		}{{h.CheckIdentity(n), want.identify}, {h.CheckUnique(n), want.sole}} {
			if c.want != "" || c.err != nil {
				wantError(t, c.err, c.want)
			}
		}
	}
	if n, err := h.Find("0000:04:00.0"); err != nil || n.Name != "port0" {
		t.Errorf("found %s, %v", n.Name, err)
	}
}

// TestVirtio: sysfs has a level between a virtio function and its netdev.
func TestVirtio(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens4", PCI: "0000:00:04.0", Behaviour: hwtest.Virtio(), TotalVFs: 2, VFs: 2, Up: true})
	h := open(t, k)
	for _, ref := range []string{"ens4", "00:04.0"} {
		n, err := h.Netdev(ref)
		if err != nil || n.ID != "0000:00:04.0" || n.Name != "ens4" || n.Driver != "virtio-pci" {
			t.Errorf("%s is %s, %s of %s, %v", ref, n.ID, n.Name, n.Driver, err)
		}
	}
	pf, err := h.PF("ens4")
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := h.VFs(pf)
	if err != nil || len(vfs) != 2 || vfs[1].Netdev.Name != "ens4v1" {
		t.Errorf("vfs are %+v, %v", vfs, err)
	}
}

// TestNoPF: a device that is not a PF is refused, and the error says what to do.
func TestNoPF(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	k.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0"})
	k.AddVeth("tap0", "tap1")
	h := open(t, k)
	if err := k.MoveToNS("c", "ens1f0v1", "eth0"); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"ens1f0v0":     "ens1f0v0: it is a vf itself; name its pf",
		"0000:01:10.0": "ens1f0v0: it is a vf itself; name its pf",
		"0000:01:10.2": "0000:01:10.2: device is in another network namespace",
		"tap0":         "tap0: it is not a PCI device, so it has no vfs; use another mode, such as passthrough",
		"nosuch0":      "nosuch0: no such device",
		"ens2": "ens2 (0000:02:00.0): sr-iov is off or missing (no sriov_totalvfs); switch it on in the firmware of the " +
			"nic and of the machine",
	} {
		_, err := h.PF(ref)
		wantError(t, err, want)
	}
}

// A racingKernel calls then right after it has listed the links, or read one.
type racingKernel struct {
	hw.Kernel
	then func()
}

func (f *racingKernel) Links() ([]hw.Link, error) {
	defer f.happen()
	return f.Kernel.Links()
}

func (f *racingKernel) LinkAt(index int) (hw.Link, error) {
	defer f.happen()
	return f.Kernel.LinkAt(index)
}

func (f *racingKernel) LinkNamed(name string) (hw.Link, error) {
	defer f.happen()
	return f.Kernel.LinkNamed(name)
}

// happen calls then, once.
func (f *racingKernel) happen() {
	if do := f.then; do != nil {
		f.then = nil
		do()
	}
}

// TestNamesChangeHands: names are read from the kernel and from sysfs one after the other. If another device takes a
// name in between, the one must not be taken for the other.
func TestNamesChangeHands(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	k.AddVeth("tap0", "tap1")
	f := &racingKernel{Kernel: k}
	h := openWith(t, k, f)
	pf, err := h.PF("ens1f0")
	if err != nil {
		t.Fatal(err)
	}
	rename := func(from, to string) {
		if err := k.SetLink(k.Link(from).Index, hw.LinkName, hw.Link{Name: to}); err != nil {
			t.Error(err)
		}
	}
	swap := func() {
		rename("ens1f0v0", "other")
		rename("ens1f0v1", "ens1f0v0")
		rename("other", "ens1f0v1")
	}
	index := func(pci string) int {
		_, l, _ := k.Netdev(pci)
		return l.Index
	}
	f.then = swap
	vfs, err := h.VFs(pf)
	if err != nil {
		t.Fatal(err)
	}
	for i, pci := range []string{"0000:01:10.0", "0000:01:10.2"} {
		if vfs[i].PCI != pci || vfs[i].Netdev.Index != index(pci) || vfs[i].ID() != hw.ID(pci) {
			t.Errorf("vf %d is %+v, want link %d", i, vfs[i], index(pci))
		}
		f.then = swap
		if n, err := h.Find(hw.ID(pci)); err != nil || n.Index != index(pci) || n.ID != hw.ID(pci) {
			t.Errorf("found %+v, %v; want link %d", n, err, index(pci))
		}
		f.then = swap
		if n, err := h.Netdev(pci); err != nil || n.Index != index(pci) {
			t.Errorf("found %+v, %v; want link %d", n, err, index(pci))
		}
	}
	f.then = func() { rename("ens1f0v0", "other") } // a VF whose name is gone is not one without a PCI address
	n, err := h.Netdev("ens1f0v1")
	if err != nil || !n.ID.IsPCI() {
		t.Errorf("found %+v, %v", n, err)
	}
	f.then = func() { rename("tap0", "ens1f0v0") }
	_, err = h.Netdev("tap0")
	wantError(t, err, "tap0: no such device")
}

// TestWhyNoNetdev: the error about a device without a netdev in the host says what is known: that it is not plugged in, has no driver or
// that of a program, that its driver has created none, or that it is in another namespace. A device that was renamed is found by its
// identity, not by its old name.
func TestWhyNoNetdev(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	pf := igb()
	pf.VFs = 5
	k.AddPF(pf)
	k.AddPF(hwtest.PF{Name: "ens9", PCI: "0000:00:14.0", Driver: "xhci_hcd"})
	k.AddPF(hwtest.PF{Name: "late0", PCI: "0000:02:00.0", Driver: "ice", DriverAfter: time.Hour})
	k.AddPF(hwtest.PF{Name: "ens4", PCI: "0000:00:04.0", Behaviour: hwtest.Virtio()})
	k.AddVeth("tap0", "tap1")
	h := open(t, k)
	veth, err := h.Netdev("tap0")
	if err != nil {
		t.Fatal(err)
	}
	k.DelLink("ens9")
	k.DelLink("tap0")
	write := func(file, text string) {
		if err := k.WriteAttr(file, text); err != nil {
			t.Fatal(err)
		}
	}
	write("bus/pci/drivers/igbvf/unbind", "0000:01:10.2")
	write("bus/pci/devices/0000:01:10.2/driver_override", "vfio-pci")
	k.LoadDriver("vfio-pci")
	write("bus/pci/drivers_probe", "0000:01:10.2")
	write("bus/pci/drivers/igbvf/unbind", "0000:01:10.0")
	for name, ns := range map[string]string{"ens1f0v2": "c", "ens4": "d"} {
		if err := k.MoveToNS(ns, name, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	k.DelLink("ens1f0v4")
	if err := k.SetLink(k.Link("ens1f0v3").Index, hw.LinkName, hw.Link{Name: "lan3"}); err != nil {
		t.Fatal(err)
	}
	const away = "device is in another network namespace"
	for pci, want := range map[string]string{
		"0000:0a:00.0": "no such device",
		"0000:02:00.0": "it has no driver, and thus no netdev; load the driver, or bind it: echo 0000:02:00.0 >/sys/bus/pci/drivers_probe",
		"0000:01:10.0": "it has no driver, and thus no netdev; load the driver, or bind it: echo 0000:01:10.0 >/sys/bus/pci/drivers_probe",
		"0000:01:10.2": "it is bound to vfio-pci, and thus has no netdev",
		"0000:01:10.4": away,
		"0000:00:04.0": away,
		"0000:00:14.0": "its driver xhci_hcd has created no netdev for it",
		"0000:01:11.0": "its driver igbvf has created no netdev for it",
	} {
		_, netdev := h.Netdev(pci)
		_, find := h.Find(hw.ID(pci))
		_, port := h.Find(hw.ID(pci + "/1"))
		_, asPF := h.PF(pci)
		for _, err := range []error{netdev, find, asPF} {
			wantError(t, err, pci+": "+want)
			if kind := hw.ErrAway; !errors.Is(err, kind) && want != "no such device" {
				t.Errorf("%v does not match %v", err, kind)
			}
		}
		wantError(t, port, pci+"/1: "+want)
	}
	if n, err := h.Find("0000:01:10.6"); err != nil || n.Name != "lan3" {
		t.Errorf("found %s, %v", n.Name, err)
	}
	_, err = h.Netdev("ens1f0v3")
	wantError(t, err, "ens1f0v3: no such device")
	_, err = h.Find(veth.ID)
	wantError(t, err, string(veth.ID)+": it is not in the host: gone, or in another network namespace")
	k.BeginRename("lan3", "lan4")
	_, err = h.Find("0000:01:10.6")
	wantError(t, err, "0000:01:10.6: its name keeps changing: device busy")
	k.EndRename("lan4")

	n, err := h.PF("ens1f0")
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := h.VFs(n)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "is bound to vfio-pci", "is in another network namespace", "", "is bound to igbvf, which has created no netdev for it"} {
		if got := vfs[i].InUse(); got != want {
			t.Errorf("vf %d %q, want %q", i, got, want)
		}
	}
}

// TestVFInTransition: a VF's netdev on which sysfs and the kernel disagree, because it is being renamed or
// unregistered, counts as away, and the other VFs are found.
func TestVFInTransition(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	h := open(t, k)
	pf, err := h.PF("ens1f0")
	if err != nil {
		t.Fatal(err)
	}
	k.BeginRename("ens1f0v0", "other")
	vfs, err := h.VFs(pf)
	if err != nil || len(vfs) != 2 || vfs[0].InUse() == "" || vfs[1].Netdev.Name != "ens1f0v1" {
		t.Errorf("vfs are %+v, %v", vfs, err)
	}
	k.EndRename("other")
	if vfs, err := h.VFs(pf); err != nil || vfs[0].Netdev.Name != "other" {
		t.Errorf("vfs are %+v, %v", vfs, err)
	}
}

// TestNotGone: a device that cannot be read is not gone; its records must not be deleted.
func TestNotGone(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	h := open(t, k)
	k.BreakDir("bus/pci/devices")
	for _, id := range []hw.ID{"0000:01:00.0", "0000:09:00.0"} {
		_, find := h.Find(id)
		_, netdev := h.Netdev(string(id))
		restore := h.RestoreNetdev(id, hw.Snapshot{Link: &hw.LinkState{Name: "x"}})
		for _, err := range []error{find, netdev, restore} {
			if err == nil || errors.Is(err, hw.ErrNotFound) || errors.Is(err, hw.ErrAway) {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
}

// TestNoWayOutOfSysfs: names come from users and from the ledger; none leads out of the directory, or elsewhere in it.
func TestNoWayOutOfSysfs(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	dir := t.TempDir()
	for _, err := range []error{os.CopyFS(filepath.Join(dir, "sys"), k.Sys), os.MkdirAll(filepath.Join(dir, "etc/net/x"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(filepath.Join(dir, "sys"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h, err := hw.Open(hw.Config{Sys: root.FS(), Kernel: k, Boot: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	before := k.String()
	for _, ref := range []string{"../../etc", "../../../etc", "a/b", "..", ".", "/etc", "../../../../etc/net/x", "lo/../lo"} {
		_, err := h.Netdev(ref)
		wantError(t, err, ref+": no such device")
		_, err = h.PF(ref)
		wantError(t, err, ref+": no such device")
	}
	for _, id := range []hw.ID{"../../../etc", "../../../../../../etc", "../../../etc/1", "", "link-1-../../etc"} {
		if n, err := h.Find(id); err == nil {
			t.Errorf("%q is %+v", id, n)
		}
	}
	err = h.RestoreNetdev("../../../etc", hw.Snapshot{Link: &hw.LinkState{Name: "x"}})
	wantError(t, err, "../../../etc: it is not in the host: gone, or in another network namespace") // as without a PCI address
	if after := k.String(); after != before || len(k.Calls()) > 0 {
		t.Errorf("something was changed: %v\n%s", k.Calls(), after)
	}
}
