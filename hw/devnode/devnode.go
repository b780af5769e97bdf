// Package devnode finds the files in /dev by which programs use a network function beside its netdev: those of its RDMA device, and the
// one of its IOMMU group while it is bound to vfio-pci.
//
// Sysfs tells which there are. Their paths are those that the kernel has in devtmpfs.
package devnode

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Nodes are the files of one function. Each list is empty if there are none of its kind.
type Nodes struct {
	RDMA  []string // names of its RDMA devices, such as mlx5_3
	Verbs []string // what each program with RDMA needs: /dev/infiniband/uverbs3, and rdma_cm if its module is loaded
	MAD   []string // for programs that manage a fabric, such as subnet managers: /dev/infiniband/umad3
	VFIO  []string // /dev/vfio/42, and the container of groups, /dev/vfio/vfio
}

// Of returns the files of the function at a PCI address, "" for none, and those of other RDMA devices by their names, as of those that software
// has made on its netdev (rdma_rxe). sys is sysfs, which no path may lead out of. A function that is not there has no files.
func Of(sys fs.FS, pci string, others ...string) (n Nodes, err error) {
	if pci != "" {
		if err := n.addVFIO(sys, "bus/pci/devices/"+pci); err != nil {
			return n, fmt.Errorf("device nodes of %s: %w", pci, err)
		}
	}
	files, err := RDMAFiles(sys)
	if err != nil {
		return n, fmt.Errorf("device nodes: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := n.addRDMA(sys, name, files[name], pci, slices.Contains(others, name)); err != nil {
			return n, fmt.Errorf("device nodes of %s: %w", name, err)
		}
	}
	if _, err := fs.Lstat(sys, "class/misc/rdma_cm"); err == nil && len(n.Verbs) > 0 { // drivers/infiniband/core/ucma.c: its nodename
		n.Verbs = append(n.Verbs, "/dev/infiniband/rdma_cm")
	}
	return n, nil
}

// addVFIO adds the files of a function that is bound to vfio-pci (drivers/vfio/group.c, Linux 6.12).
func (n *Nodes) addVFIO(sys fs.FS, dir string) error {
	driver, err := link(sys, dir+"/driver")
	if driver != "vfio-pci" || err != nil {
		return err
	}
	group, err := link(sys, dir+"/iommu_group")
	if group == "" || err != nil {
		return err
	}
	name, err := text(sys, dir+"/iommu_group/name")
	if err != nil {
		return err
	}
	if name == "vfio-noiommu" {
		group = "noiommu-" + group
	}
	n.VFIO = []string{"/dev/vfio/" + group, "/dev/vfio/vfio"}
	return nil
}

// addRDMA adds the files of an RDMA device if that is asked for, or of the function. The function is read where the files are: the device
// itself may be in another network namespace, and then it is not in class/infiniband.
func (n *Nodes) addRDMA(sys fs.FS, name string, files []string, pci string, ours bool) error {
	for _, f := range files {
		if strings.HasPrefix(f, "uverbs") && pci != "" {
			function, err := link(sys, "class/infiniband_verbs/"+f+"/device")
			if err != nil {
				return err
			}
			ours = ours || function == pci
		}
	}
	if !ours {
		return nil
	}
	n.RDMA = append(n.RDMA, name)
	for _, f := range files {
		switch {
		case strings.HasPrefix(f, "uverbs"):
			n.Verbs = append(n.Verbs, "/dev/infiniband/"+f)
		case strings.HasPrefix(f, "umad"):
			n.MAD = append(n.MAD, "/dev/infiniband/"+f)
		}
	}
	return nil
}

// RDMAFiles returns the names of the files in /dev/infiniband by the name of their RDMA device: uverbs0, umad0, issm0. They are in no network
// namespace: each is visible in all, also that of a device which is not.
func RDMAFiles(sys fs.FS) (map[string][]string, error) {
	files := map[string][]string{}
	for _, class := range []string{"class/infiniband_verbs", "class/infiniband_mad"} {
		entries, err := fs.ReadDir(sys, class)
		if present(err) != nil { // a module of its own makes each
			return nil, fmt.Errorf("rdma: %w", err)
		}
		for _, e := range entries {
			switch of, err := text(sys, class+"/"+e.Name()+"/ibdev"); { // beside them is abi_version, which is none
			case err == nil && of != "":
				files[of] = append(files[of], e.Name())
			case err != nil && !errors.Is(err, syscall.ENOTDIR):
				return nil, fmt.Errorf("rdma: %w", err)
			}
		}
	}
	return files, nil
}

// text returns an attribute without its trailing newline, "" if there is no such attribute.
func text(sys fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(sys, name)
	return strings.TrimSpace(string(b)), present(err)
}

// link returns the last element of the target of a symbolic link, "" if there is no such link.
func link(sys fs.FS, name string) (string, error) {
	t, err := fs.ReadLink(sys, name)
	if t == "" || err != nil {
		return "", present(err)
	}
	return path.Base(t), nil
}

// present returns an error, nil if it says that there is no such entry.
func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
