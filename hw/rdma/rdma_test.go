package rdma_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
)

// machine returns a machine with a ConnectX that has two VFs, an igb, and their RDMA devices.
func machine(t *testing.T) (*hwtest.Kernel, *rdma.Host) {
	t.Helper()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1f0np0", PCI: "0000:01:00.0", Behaviour: hwtest.MLX5(), Driver: "mlx5_core", VFDriver: "mlx5_core", TotalVFs: 2, VFs: 2, Up: true})
	k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 7, Up: true})
	return k, rdma.New(k.Sys, k.RDMA())
}

// TestDevices: the devices of functions and of netdevs are found with what they have.
func TestDevices(t *testing.T) {
	k, h := machine(t)
	k.AddRXE("rxe0", "ens2f0")
	devices, err := h.Devices()
	if err != nil {
		t.Fatal(err)
	}
	_, igb, _ := k.Netdev("0000:02:00.0")
	port := func(state string) []rdma.Port { return []rdma.Port{{Number: "1", State: state, Layer: "Ethernet"}} }
	pf := rdma.Device{Name: "mlx5_0", PCI: "0000:01:00.0", NodeGUID: "00:02:c9:03:00:a1:00:00", Ports: port("active"), Files: []string{"uverbs0", "issm0", "umad0"}}
	vf := rdma.Device{Name: "mlx5_1", PCI: "0000:01:10.0", NodeGUID: "00:02:c9:03:00:a1:00:01", Ports: port("down"), Files: []string{"uverbs1", "issm1", "umad1"}}
	soft := rdma.Device{Name: "rxe0", Netdev: igb.Index, NodeGUID: "00:02:c9:03:00:a1:00:03", Ports: port("active"), Files: []string{"uverbs3", "issm3", "umad3"}}
	if diff := cmp.Diff([]rdma.Device{pf, vf, soft}, append(devices[:2:2], devices[3:]...), cmp.Transformer("hardware", func(d rdma.Device) rdma.Device {
		if d.Index = 0; d.PCI != "" {
			d.Netdev = 0
		}
		return d
	})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		pci    string
		netdev int
		want   string
	}{{"0000:01:00.0", 0, "mlx5_0"}, {"0000:01:10.0", 0, "mlx5_1"}, {"0000:02:00.0", igb.Index, "rxe0"}, {"0000:02:00.0", 0, ""}, {"", 0, ""}, {"", igb.Index, "rxe0"}} {
		got := ""
		for _, d := range rdma.Of(devices, c.pci, c.netdev) {
			got += d.Name
		}
		if got != c.want {
			t.Errorf("of %q, netdev %d: %q, want %q", c.pci, c.netdev, got, c.want)
		}
	}
}

// TestDevicesFollow: an RDMA device goes with the driver of its function; one of software ends when its netdev goes to a container.
func TestDevicesFollow(t *testing.T) {
	k, h := machine(t)
	k.AddRXE("rxe0", "ens2f0")
	if err := k.MoveToNS("c1", "ens2f0", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := k.WriteAttr("bus/pci/drivers/mlx5_core/unbind", "0000:01:10.0"); err != nil {
		t.Fatal(err)
	}
	devices, err := h.Devices()
	if err != nil || len(devices) != 2 || devices[0].Name != "mlx5_0" || devices[1].Name != "mlx5_2" {
		t.Errorf("%+v, %v", devices, err)
	}
}

// TestMode: the mode is that of the kernel; kernels without modes share all devices, and without a module for RDMA there is none.
func TestMode(t *testing.T) {
	for _, c := range []struct {
		exclusive, none bool
		want            rdma.Mode
	}{{false, false, rdma.Shared}, {true, false, rdma.Exclusive}, {false, true, rdma.Shared}} {
		k, h := machine(t)
		k.RDMAExclusive, k.NoRDMAModes = c.exclusive, c.none
		if got, err := h.Mode(); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	k := hwtest.New(t)
	h := rdma.New(k.Sys, k.RDMA())
	mode, err := h.Mode()
	devices, listErr := h.Devices()
	if mode != "" || err != nil || len(devices) != 0 || listErr != nil {
		t.Errorf("without RDMA: %q, %v, %v, %v", mode, err, devices, listErr)
	}
}

// TestUnreadable: what cannot be read is an error, and no device less.
func TestUnreadable(t *testing.T) {
	const function = "devices/pci0000:00/0000:00:01.0/0000:01:00.0/infiniband/mlx5_0/"
	for _, name := range []string{function + "node_guid", function + "ports/1/state", "class/infiniband_verbs"} {
		k, h := machine(t)
		k.BreakDir(name)
		if devices, err := h.Devices(); err == nil {
			t.Errorf("%s: %+v", name, devices)
		}
	}
}

// TestAway: a function whose RDMA device is in another namespace is told from one that has none.
func TestAway(t *testing.T) {
	k, h := machine(t)
	k.RDMAExclusive = true
	k.MoveRDMA("mlx5_1", "c1")
	devices, err := h.Devices()
	if err != nil || len(devices) != 2 {
		t.Errorf("%+v, %v", devices, err)
	}
	for pci, want := range map[string]bool{"0000:01:10.0": true, "0000:01:00.0": false, "0000:02:00.0": false} {
		if away, err := h.Away(pci); away != want || err != nil {
			t.Errorf("%s: %v, %v", pci, away, err)
		}
	}
	k.KillNS("c1", 0)
	if away, err := h.Away("0000:01:10.0"); away || err != nil {
		t.Errorf("after its end: %v, %v", away, err)
	}
}

// TestOpenNamespace: a file is opened in the folder that is given, wherever its path says it is, and no name leads out of the folder.
func TestOpenNamespace(t *testing.T) {
	outside, folder := t.TempDir(), t.TempDir()
	for _, file := range []string{filepath.Join(outside, "a"), filepath.Join(folder, "b")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(outside, "a"), filepath.Join(folder, "c")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		folder, path string
		ok           bool
	}{{"", filepath.Join(outside, "a"), true}, {folder, "/var/run/x/b", true}, {folder, filepath.Join(outside, "a"), false}, {folder, "/var/run/x/c", false},
		{folder, "../" + filepath.Base(outside) + "/a", false}, {"", "/gone", false}} {
		ns, err := rdma.OpenNamespace(c.folder, c.path)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			_ = ns.Close() // nothing was written
		}
	}
}
