package devnode_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw/devnode"
)

// tree returns a file system with files by their names, and symbolic links for texts that begin with "->".
func tree(t *testing.T, files map[string]string) fs.FS {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		err := error(nil)
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], file)
		} else {
			err = os.WriteFile(file, []byte(text+"\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root.FS()
}

const vf, pf = "0000:03:00.2", "0000:03:00.0"

// host is a PF and a VF of mlx5 with their RDMA devices, of which the VF's was moved to a container, one of software on the netdev veth0,
// and a VF that is bound to vfio-pci.
func host() map[string]string {
	return map[string]string{
		"devices/pci/" + pf + "/vendor":         "0x15b3",
		"devices/pci/" + vf + "/vendor":         "0x15b3",
		"bus/pci/devices/" + pf:                 "->../../../devices/pci/" + pf,
		"bus/pci/devices/" + vf:                 "->../../../devices/pci/" + vf,
		"devices/pci/0000:03:00.3/vendor":       "0x15b3",
		"bus/pci/devices/0000:03:00.3":          "->../../../devices/pci/0000:03:00.3",
		"devices/pci/0000:03:00.3/driver":       "->../../../bus/pci/drivers/vfio-pci",
		"devices/pci/0000:03:00.3/iommu_group":  "->../../../kernel/iommu_groups/42",
		"kernel/iommu_groups/42/type":           "DMA",
		"class/infiniband/mlx5_0/device":        "->../../../devices/pci/" + pf,
		"class/infiniband_verbs/abi_version":    "6",
		"class/infiniband_verbs/uverbs0/ibdev":  "mlx5_0",
		"class/infiniband_verbs/uverbs0/device": "->../../../devices/pci/" + pf,
		"class/infiniband_verbs/uverbs7/ibdev":  "mlx5_2",
		"class/infiniband_verbs/uverbs7/device": "->../../../devices/pci/" + vf,
		"class/infiniband_verbs/uverbs9/ibdev":  "rxe0",
		"class/infiniband_mad/abi_version":      "5",
		"class/infiniband_mad/umad0/ibdev":      "mlx5_0",
		"class/infiniband_mad/issm0/ibdev":      "mlx5_0",
		"class/infiniband_mad/umad3/ibdev":      "mlx5_2",
		"class/misc/rdma_cm/dev":                "10:122",
	}
}

// TestOf: a function has the files of its own RDMA device, wherever that is, one of software those that are asked for by its name, and a function that is bound to
// vfio-pci those of its group.
func TestOf(t *testing.T) {
	t.Parallel()
	sys := tree(t, host())
	for _, c := range []struct {
		pci   string
		other string
		want  devnode.Nodes
	}{
		{vf, "", devnode.Nodes{RDMA: []string{"mlx5_2"}, Verbs: []string{"/dev/infiniband/uverbs7", "/dev/infiniband/rdma_cm"},
			MAD: []string{"/dev/infiniband/umad3"}}},
		{pf, "", devnode.Nodes{RDMA: []string{"mlx5_0"}, Verbs: []string{"/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"},
			MAD: []string{"/dev/infiniband/umad0"}}},
		{"", "rxe0", devnode.Nodes{RDMA: []string{"rxe0"}, Verbs: []string{"/dev/infiniband/uverbs9", "/dev/infiniband/rdma_cm"}}},
		{"0000:03:00.3", "", devnode.Nodes{VFIO: []string{"/dev/vfio/42", "/dev/vfio/vfio"}}},
		{"0000:03:00.4", "rxe1", devnode.Nodes{}},
		{"", "", devnode.Nodes{}},
	} {
		got, err := devnode.Of(sys, c.pci, c.other)
		if err != nil {
			t.Errorf("%q %q: %v", c.pci, c.other, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q %q (-want +got):\n%s", c.pci, c.other, diff)
		}
	}
}

// TestWithout: without RDMA and its connection manager there are no files of them; a group without an IOMMU has another name.
func TestWithout(t *testing.T) {
	t.Parallel()
	none, err := devnode.Of(tree(t, map[string]string{"class/net/x": ""}), vf)
	if diff := cmp.Diff(devnode.Nodes{}, none); diff != "" || err != nil {
		t.Errorf("without RDMA: %v\n%s", err, diff)
	}
	files := host()
	delete(files, "class/misc/rdma_cm/dev")
	files["kernel/iommu_groups/42/name"] = "vfio-noiommu"
	sys := tree(t, files)
	got, err := devnode.Of(sys, vf)
	if diff := cmp.Diff([]string{"/dev/infiniband/uverbs7"}, got.Verbs); diff != "" || err != nil {
		t.Errorf("without rdma_cm: %v\n%s", err, diff)
	}
	got, err = devnode.Of(sys, "0000:03:00.3")
	if diff := cmp.Diff([]string{"/dev/vfio/noiommu-42", "/dev/vfio/vfio"}, got.VFIO); diff != "" || err != nil {
		t.Errorf("without an IOMMU: %v\n%s", err, diff)
	}
}

// TestUnreadable: what cannot be read is an error, not absent.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	files := host()
	files["class/infiniband_verbs/uverbs7/ibdev"] = "->../../../../../etc/hostname" // a root lets no path out
	if n, err := devnode.Of(tree(t, files), vf); err == nil {
		t.Errorf("no error: %+v", n)
	}
}
