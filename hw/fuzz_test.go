package hw_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// FuzzCPUs: any text is a list of CPUs whose text reads as the same list, or is refused.
func FuzzCPUs(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		cpus, err := hw.ParseCPUs(text)
		if err != nil {
			if !errors.Is(err, hw.ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := hw.ParseCPUs(cpus.String())
		slices.Sort(cpus)
		if err != nil || !slices.Equal(cpus, again) || len(slices.Compact(slices.Clone(cpus))) != len(cpus) {
			t.Errorf("%q is %v, and written down again %v, %v", text, cpus, again, err)
		}
	})
}

// attributes are the attributes that are read of a PF, a VF and a netdev, and of the machine.
var attributes = []string{
	"bus/pci/devices/0000:01:00.0/sriov_totalvfs", "bus/pci/devices/0000:01:00.0/sriov_numvfs",
	"bus/pci/devices/0000:01:00.0/numa_node", "bus/pci/devices/0000:01:00.0/local_cpulist",
	"bus/pci/devices/0000:01:00.0/class", "bus/pci/devices/0000:01:00.0/vendor", "bus/pci/devices/0000:01:00.0/device",
	"bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe", "bus/pci/devices/0000:01:10.0/driver_override",
	"bus/pci/devices/0000:01:00.0/sriov/0/node", "bus/pci/devices/0000:01:00.0/sriov/0/policy",
	"class/net/ib0/ifindex", "class/net/ib0/dev_port", "class/net/ib0/name_assign_type",
	"bus/pci/devices/0000:01:00.0/infiniband/mlx5_0/ports/1/state", "devices/system/cpu/online",
}

// FuzzSysfs: whatever an attribute contains, the result is a value or an error that names the device, and another NIC
// is not affected.
func FuzzSysfs(f *testing.F) {
	k := hwtest.New(f)
	k.AddPF(hwtest.PF{Name: "ib0", PCI: "0000:01:00.0", TotalVFs: 4, VFs: 2, Up: true,
		Behaviour: hwtest.IPoIBVendorTree()})
	k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 4, VFs: 2, Up: true})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot-1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		name := attributes[int(which)%len(attributes)]
		restore := k.OverwriteAttr(name, string(content))
		defer restore()
		if pf, err := host.PF("ib0"); err == nil {
			readAll(t, host, pf)
		} else if !strings.Contains(err.Error(), "ib0") && !strings.Contains(err.Error(), "0000:01:00.0") {
			t.Errorf("%s with %q: the error does not name the device: %v", name, content, err)
		}
		for _, ref := range []string{"8086:10c9", "driver:igb", "*"} {
			_, _ = host.PFs(ref) // either
		}
		pf, err := host.PF("ens2f0")
		if err != nil || pf.NumVFs != 2 || pf.TotalVFs != 4 {
			t.Errorf("%s with %q: the other NIC is %+v, %v", name, content, pf, err)
		}
		if vfs, err := host.VFs(pf); err != nil || len(vfs) != 2 {
			t.Errorf("%s with %q: the other NIC has %+v, %v", name, content, vfs, err)
		}
	})
}

// readAll reads everything about a PF; errors are fine.
func readAll(t *testing.T, host *hw.Host, pf hw.PF) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, _ = host.SnapshotPF(pf)
	_, _ = host.VFStates(pf)
	_, _ = host.Near(pf, hw.CPUs{0, 1})
	_, _ = host.IRQAffinity(ctx, pf.ID)
	_, _ = host.Netdev(pf.Name)
	_ = host.CheckCores(hw.Cores{CPUs: hw.CPUs{0}})
	vfs, err := host.VFs(pf)
	if err != nil {
		return
	}
	for _, vf := range vfs {
		_, _ = host.Taken(vf)
		_, _ = host.SnapshotVF(pf, vf)
	}
}

// FuzzDeviceName: any text selects existing devices, or is refused as not found, malformed or unsupported.
func FuzzDeviceName(f *testing.F) {
	k := hwtest.New(f)
	k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 4, VFs: 2, Up: true})
	k.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0"})
	k.AddVeth("tap0", "tap1")
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot-1"})
	if err != nil {
		f.Fatal(err)
	}
	expected := func(err error) bool {
		return errors.Is(err, hw.ErrNotFound) || errors.Is(err, hw.ErrInvalid) || errors.Is(err, hw.ErrUnsupported) || errors.Is(err, hw.ErrAway)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		pfs, err := host.PFs(ref)
		if err != nil && !expected(err) || err == nil && (len(pfs) != 1 || pfs[0].Name != "ens1f0") {
			t.Errorf("%q selects %v, %v", ref, pfs, err)
		}
		n, err := host.Netdev(ref)
		if err != nil && !expected(err) || err == nil && index(t, k, n.Name) != n.Index {
			t.Errorf("%q is %+v, %v", ref, n, err)
		}
		if _, err := host.Find(hw.ID(ref)); err != nil && !expected(err) {
			t.Errorf("the ID %q: %v", ref, err)
		}
	})
}

// index returns the ifindex of a link; Kernel.Link needs a test that is not a fuzz target.
func index(t *testing.T, k *hwtest.Kernel, name string) int {
	t.Helper()
	links, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == name {
			return l.Index
		}
	}
	return 0
}
