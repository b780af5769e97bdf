// Package devnode finds the files in /dev by which programs use a network function beside its netdev: those of its RDMA device, and the
// one of its IOMMU group while it is bound to vfio-pci.
//
// Sysfs tells which there are. Their paths are those that the kernel has in devtmpfs.
package devnode

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Nodes are the files of one function. Each list is empty if there are none of its kind.
type Nodes struct {
	RDMA  []string // names of its RDMA devices, such as mlx5_3
	Verbs []string // what each program with RDMA needs: /dev/infiniband/uverbs3, and rdma_cm if its module is loaded
	MAD   []string // for programs that manage a fabric, such as subnet managers: /dev/infiniband/umad3
	VFIO  []string // /dev/vfio/42, and the container of groups, /dev/vfio/vfio
}

// Of returns the files of the function at a PCI address, and of the RDMA devices that software has made on a netdev (rdma_rxe). Both may be
// "" for none. sys is sysfs, which no path may lead out of. A function that is not there has no files.
func Of(sys fs.FS, pci, netdev string) (n Nodes, err error) {
	if pci != "" {
		if err := n.addVFIO(sys, "bus/pci/devices/"+pci); err != nil {
			return n, fmt.Errorf("device nodes of %s: %w", pci, err)
		}
	}
	// Unlike class/infiniband this class has the devices of all network namespaces (drivers/infiniband/core/uverbs_main.c, Linux 6.12).
	verbs, err := names(sys, "class/infiniband_verbs")
	for _, v := range verbs {
		if err == nil && strings.HasPrefix(v, "uverbs") {
			err = n.addVerbs(sys, v, pci, netdev)
		}
	}
	if err != nil || len(n.RDMA) == 0 {
		return n, wrapped(err)
	}
	if has(sys, "class/misc/rdma_cm") { // drivers/infiniband/core/ucma.c: its nodename
		n.Verbs = append(n.Verbs, "/dev/infiniband/rdma_cm")
	}
	mads, err := names(sys, "class/infiniband_mad")
	for _, m := range mads {
		if err == nil && strings.HasPrefix(m, "umad") {
			err = n.addMAD(sys, m)
		}
	}
	return n, wrapped(err)
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

// addVerbs adds one file of the class infiniband_verbs, and its RDMA device, if that is of the function or the netdev. One that disappears
// meanwhile is none.
func (n *Nodes) addVerbs(sys fs.FS, file, pci, netdev string) error {
	dir := "class/infiniband_verbs/" + file
	rdma, err := text(sys, dir+"/ibdev")
	if rdma == "" || err != nil {
		return err
	}
	function, err := link(sys, dir+"/device")
	if err != nil {
		return err
	}
	parent, err := text(sys, "class/infiniband/"+rdma+"/parent") // drivers/infiniband/sw/rxe/rxe_verbs.c, parent_show
	if err != nil {
		return err
	}
	if pci != "" && function == pci || netdev != "" && parent == netdev {
		n.RDMA = append(n.RDMA, rdma)
		n.Verbs = append(n.Verbs, "/dev/infiniband/"+file)
	}
	return nil
}

// addMAD adds one file of the class infiniband_mad, if it is of one of the RDMA devices.
func (n *Nodes) addMAD(sys fs.FS, file string) error {
	rdma, err := text(sys, "class/infiniband_mad/"+file+"/ibdev")
	for _, have := range n.RDMA {
		if have == rdma {
			n.MAD = append(n.MAD, "/dev/infiniband/"+file)
		}
	}
	return err
}

func wrapped(err error) error {
	if err != nil {
		return fmt.Errorf("device nodes: %w", err)
	}
	return nil
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

// names returns the names in a directory in order, none if there is no such directory.
func names(sys fs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(sys, dir)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, present(err)
}

// has returns true if there is an entry of that name.
func has(sys fs.FS, name string) bool {
	_, err := fs.Lstat(sys, name)
	return err == nil
}

// present returns an error, nil if it says that there is no such entry.
func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
