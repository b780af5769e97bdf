package topology_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/topology"
)

// bus returns a machine with two processors. What is not said to be on the second is on the first.
func bus(t *testing.T) topology.Topology {
	k := hwtest.New(t)
	for _, f := range []struct {
		pci, behind string
		node        int
	}{
		{"0000:13:00.0", "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0", 0}, // two ports of a NIC behind a switch
		{"0000:13:00.1", "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0", 0},
		{"0000:33:00.0", "platform/soc/pci0000:30/0000:30:01.0", 0}, // alone behind a root port
		{"0000:10:1f.6", "pci0000:10", 0},                           // on the root complex
		{"10000:01:00.0", "pci0000:80/0000:80:1f.0/pci10000:00", 1}, // behind a VMD, on the second
		{"0000:93:00.0", "pci0000:90/0000:90:01.0", 1},              // on the second
		{"0000:a3:00.0", "pci0000:a0/0000:a0:01.0", -1},             // the firmware does not tell where
	} {
		k.AddPF(hwtest.PF{PCI: f.pci, Name: "n" + f.pci, Behind: f.behind, NUMANode: f.node})
	}
	k.AddGPU("0000:15:00.0", "pci0000:10/0000:10:01.0/0000:11:00.0/0000:14:00.0", "0x030200", 0) // beside the NIC
	k.AddGPU("0000:23:00.0", "pci0000:10/0000:10:03.0", "0x120000", 0)
	k.AddGPU("0000:94:00.0", "pci0000:90/0000:90:01.0", "0x038000", 1)
	k.AddGPU("0000:95:00.0", "pci0000:90/0000:90:02.0", "0x030000", 1)
	k.AddGPU("0000:96:00.0", "pci0000:90/0000:90:02.0", "0x040300", 1) // the sound of that
	k.AddGPU("0000:c0:00.0", "pci0000:c0/0000:c0:01.0", "0x030000", 0)
	restore := k.OverwriteAttr("bus/pci/devices/0000:c0:00.0/vendor", "0x1a03") // the console of the server
	t.Cleanup(restore)
	return topology.Topology{Sys: k.Sys}
}

// TestDistance: functions of one device, then those behind one switch, on one root complex, on one NUMA node; the rest is far.
func TestDistance(t *testing.T) {
	top := bus(t)
	for _, c := range []struct {
		a, b string
		want topology.Distance
		text string
	}{
		{"0000:13:00.0", "0000:13:00.0", topology.Distance{Level: topology.RootPort}, "behind the same root port"},
		{"0000:13:00.0", "0000:13:00.1", topology.Distance{Level: topology.RootPort}, "behind the same root port"},
		{"0000:13:00.0", "0000:15:00.0", topology.Distance{Level: topology.RootPort, Hops: 2}, "behind the same root port"},
		{"0000:13:00.0", "0000:23:00.0", topology.Distance{Level: topology.RootComplex, Hops: 4}, "on the same root complex"},
		{"0000:10:1f.6", "0000:23:00.0", topology.Distance{Level: topology.RootComplex, Hops: 2}, "on the same root complex"},
		{"0000:13:00.0", "0000:33:00.0", topology.Distance{Level: topology.Node}, "on the same NUMA node"},
		{"10000:01:00.0", "0000:93:00.0", topology.Distance{Level: topology.Node}, "on the same NUMA node"},
		{"0000:13:00.0", "0000:93:00.0", topology.Distance{Level: topology.Machine}, "elsewhere in this machine"},
		{"0000:a3:00.0", "0000:93:00.0", topology.Distance{Level: topology.Machine}, "elsewhere in this machine"},
	} {
		for _, of := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			got, err := top.Distance(of[0], of[1])
			if got != c.want || err != nil || got.Level.String() != c.text {
				t.Errorf("%s to %s: %+v (%s), %v, want %+v (%s)", of[0], of[1], got, got.Level, err, c.want, c.text)
			}
		}
	}
	for _, absent := range []string{"0000:ff:00.0", "nosuch"} {
		if _, err := top.Distance("0000:13:00.0", absent); !errors.Is(err, topology.ErrNone) || err.Error() != absent+": no such pci device" {
			t.Errorf("to %s: %v", absent, err)
		}
	}
}

// TestNearest: all that are equally near, in the order in which they are given.
func TestNearest(t *testing.T) {
	top := bus(t)
	gpus, err := top.GPUs()
	if want := []string{"0000:15:00.0", "0000:23:00.0", "0000:94:00.0", "0000:95:00.0"}; err != nil || !slices.Equal(gpus, want) {
		t.Fatalf("%q, %v; want %q", gpus, err, want)
	}
	for to, want := range map[string][]string{"0000:13:00.1": {"0000:15:00.0"}, "0000:93:00.0": {"0000:94:00.0"},
		"0000:33:00.0": {"0000:15:00.0", "0000:23:00.0"}, "10000:01:00.0": {"0000:94:00.0", "0000:95:00.0"}, "0000:a3:00.0": gpus} {
		if near, d, err := top.Nearest(to, append([]string{"0000:ff:00.0"}, gpus...)); err != nil || !slices.Equal(near, want) {
			t.Errorf("nearest to %s: %q (%+v), %v; want %q", to, near, d, err, want)
		}
	}
	if near, d, err := top.Nearest("0000:13:00.0", nil); len(near) > 0 || err != nil || d.Compare(topology.Distance{Level: topology.Machine}) <= 0 {
		t.Errorf("nearest of none: %q (%+v), %v", near, d, err)
	}
}

// TestThisMachine: each function of the machine that runs the test is where it is, and nothing is nearer to it.
func TestThisMachine(t *testing.T) {
	top := topology.Topology{Sys: os.DirFS("/sys")}
	entries, err := os.ReadDir("/sys/bus/pci/devices")
	if err != nil {
		t.Skip(err)
	}
	if _, err := top.GPUs(); err != nil {
		t.Error(err)
	}
	for _, a := range entries {
		for _, b := range entries {
			d, err := top.Distance(a.Name(), b.Name())
			if err != nil || d.Level > topology.RootComplex && a == b {
				t.Errorf("%s to %s: %+v, %v", a.Name(), b.Name(), d, err)
			}
		}
	}
}
