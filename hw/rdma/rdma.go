// Package rdma finds the RDMA devices of network functions: which there are (class infiniband of sysfs), to which PCI function or netdev
// each belongs, its GUID, the state of its ports and its character devices. A software device, such as one of rdma_rxe, belongs to a netdev.
//
// The kernel shares RDMA devices between all network namespaces, or gives each to one namespace, as [Mode] says. Netlink tells the mode and
// the netdevs, see [Kernel]; package rtnl implements it, package hwtest a fake.
package rdma

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/devnode"
)

// Mode is in which network namespaces an RDMA device is.
type Mode string

// Modes. The kernel starts with Shared, unless its module ib_core has the parameter netns_mode=0.
const (
	Shared    Mode = "shared"    // every namespace sees every device, wherever its netdev is
	Exclusive Mode = "exclusive" // a device is in one namespace
)

// Kernel is what this package asks over netlink (NETLINK_RDMA). Errors are as those of [hw.Kernel], and match [hw.ErrUnsupported] if no
// module for RDMA is loaded.
type Kernel interface {
	// Mode returns the mode of the kernel. The error matches [hw.ErrInvalid] if it has none.
	Mode() (Mode, error)
	// Links lists the RDMA devices that are visible in the namespace.
	Links() ([]Link, error)
	// Move moves a device to the network namespace that a file is of. The error matches [hw.ErrNotFound] if the file is none of a namespace,
	// and [hw.ErrUnsupported] if devices are shared, or the driver cannot take the device from programs that use it.
	Move(index int, ns *os.File) error
	// Rename renames a device.
	Rename(index int, name string) error
}

// A Link is an RDMA device as netlink has it.
type Link struct {
	Index int // it stays when the device is renamed or moved
	Name  string
	// Netdev is the ifindex of the netdev of the first port, 0 if that has none in this namespace (RDMA_NLDEV_ATTR_NDEV_INDEX; Linux
	// 6.12, drivers/infiniband/core/nldev.c, fill_port_info).
	Netdev int
}

// A Device is an RDMA device that is visible in the namespace.
type Device struct {
	Name     string  `json:"name"`
	PCI      string  `json:"pci,omitempty"` // address of its function, "" if it is made by software
	Index    int     `json:"-"`             // as in [Link]
	Netdev   int     `json:"-"`             // likewise
	NodeGUID hw.GUID `json:"node_guid"`
	Ports    []Port  `json:"ports"`
	// Files are its character devices in /dev/infiniband: uverbs0, umad0, issm0.
	Files []string `json:"files"`
}

// A Port is a port of an RDMA device.
type Port struct {
	Number string `json:"number"` // counted from 1
	State  string `json:"state"`  // down, init, armed or active
	Layer  string `json:"layer"`  // Ethernet or InfiniBand
}

// A GID is an address of a port, which programs choose by its index.
type GID struct {
	Index  int
	Addr   netip.Addr // of a port on Ethernet that of a network device, or made of its MAC (drivers/infiniband/core/roce_gid_mgmt.c, Linux 6.12)
	Netdev string     // name of that network device, in whatever namespace it is; "" if it is gone
}

// Host is the RDMA devices of a machine, as seen from one network namespace. It has no state of its own.
type Host struct {
	sys    fs.FS
	kernel Kernel
}

// New returns the RDMA devices of the machine that has this sysfs; of nil, one that has none.
func New(sys fs.FS, kernel Kernel) *Host { return &Host{sys, kernel} }

// Mode returns in which namespaces devices are, "" if no module for RDMA is loaded. Linux before 5.2 shares all devices, and knows no modes.
func (h *Host) Mode() (Mode, error) {
	if loaded, err := h.loaded(); !loaded {
		return "", err
	}
	m, err := h.kernel.Mode()
	if errors.Is(err, hw.ErrInvalid) { // drivers/infiniband/core/netlink.c, rdma_nl_rcv_msg: an operation that it does not have
		return Shared, nil
	}
	if err != nil {
		return "", fmt.Errorf("rdma: read the netns mode: %w", err)
	}
	return m, nil
}

// loaded returns true if a module for RDMA is loaded. Without one the kernel is not asked, which may make it load one.
func (h *Host) loaded() (bool, error) {
	if h.sys == nil {
		return false, nil
	}
	_, err := fs.Lstat(h.sys, "class/infiniband")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Devices lists the RDMA devices in order of their names. One that disappears meanwhile is left out.
func (h *Host) Devices() ([]Device, error) {
	if loaded, err := h.loaded(); !loaded {
		return nil, err
	}
	links, err := h.kernel.Links()
	if err != nil {
		return nil, fmt.Errorf("rdma: list devices: %w", err)
	}
	files, err := devnode.RDMAFiles(h.sys)
	if err != nil {
		return nil, err
	}
	byName := map[string]Link{}
	for _, l := range links {
		byName[l.Name] = l
	}
	var devices []Device
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		switch d, err := h.device(byName[name], files[name]); {
		case err == nil:
			devices = append(devices, d)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("rdma: %w", err)
		}
	}
	return devices, nil
}

// Of returns those devices that belong to a function, or, made by software, to a netdev. pci is "" for a netdev without a function, netdev
// is 0 for a function whose netdev is not in the namespace.
func Of(devices []Device, pci string, netdev int) []Device {
	var of []Device
	for _, d := range devices {
		if d.PCI != "" && d.PCI == pci || d.PCI == "" && d.Netdev != 0 && d.Netdev == netdev {
			of = append(of, d)
		}
	}
	return of
}

// Away returns true if a PCI function has an RDMA device, and none in this namespace: the directory that it is in exists, and is empty
// (drivers/base/core.c, get_device_parent and cleanup_glue_dir, Linux 6.12).
func (h *Host) Away(pci string) (bool, error) {
	if loaded, err := h.loaded(); !loaded {
		return false, err
	}
	entries, err := fs.ReadDir(h.sys, "bus/pci/devices/"+pci+"/infiniband")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("rdma: %w", err)
	}
	return len(entries) == 0, nil
}

// Present returns true if there is a PCI function with an address.
func (h *Host) Present(pci string) (bool, error) {
	_, err := fs.Lstat(h.sys, "bus/pci/devices/"+pci)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// OpenNamespace opens the file of a network namespace: that of the name in a folder, if folder is not "", or else the one at path.
func OpenNamespace(folder, path string) (ns *os.File, err error) {
	if folder != "" {
		var root *os.Root
		if root, err = os.OpenRoot(folder); err == nil {
			ns, err = root.Open(filepath.Base(path))
			err = errors.Join(err, root.Close())
		}
	} else {
		ns, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("network namespace %s is not seen by the plugin, or does not exist yet, as with engines before 28: %w", path, err)
	}
	return ns, nil
}

// Move moves a device to the network namespace that a file is of.
func (h *Host) Move(d Device, ns *os.File) error {
	err := h.kernel.Move(d.Index, ns)
	switch {
	case errors.Is(err, hw.ErrNotFound):
		return fmt.Errorf("%s is no network namespace: %w", ns.Name(), err)
	case errors.Is(err, hw.ErrUnsupported):
		return fmt.Errorf("its driver cannot take it from programs that use it: %w", err)
	}
	return err
}

// Rename renames a device, unless it has the name already.
func (h *Host) Rename(d Device, name string) error {
	if d.Name == name {
		return nil
	}
	if err := h.kernel.Rename(d.Index, name); err != nil {
		return fmt.Errorf("rename %s: %w", d.Name, err)
	}
	return nil
}

// device reads what sysfs has of a device.
func (h *Host) device(l Link, files []string) (Device, error) {
	dir := "class/infiniband/" + l.Name
	d := Device{Name: l.Name, Index: l.Index, Netdev: l.Netdev, Files: files}
	if target, err := fs.ReadLink(h.sys, dir+"/device"); err == nil && hw.ID(path.Base(target)).IsPCI() {
		d.PCI = path.Base(target)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	guid, err := h.text(dir + "/node_guid")
	if err != nil {
		return d, err
	}
	d.NodeGUID = colons(guid)
	ports, err := fs.ReadDir(h.sys, dir+"/ports")
	if err != nil {
		return d, err
	}
	for _, p := range ports {
		state, err := h.text(dir + "/ports/" + p.Name() + "/state") // "4: ACTIVE"
		if err != nil {
			return d, err
		}
		_, state, _ = strings.Cut(state, ": ")
		layer, err := h.text(dir + "/ports/" + p.Name() + "/link_layer")
		if err != nil {
			return d, err
		}
		d.Ports = append(d.Ports, Port{p.Name(), strings.ToLower(state), layer})
	}
	return d, nil
}

// GIDs lists the GIDs of the first port of a device. One that disappears meanwhile is left out.
func (h *Host) GIDs(d Device) (gids []GID, _ error) {
	dir := "class/infiniband/" + d.Name + "/ports/1/"
	entries, err := fs.ReadDir(h.sys, dir+"gids")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rdma: %w", err)
	}
	for _, e := range entries {
		index, err := strconv.Atoi(e.Name())
		text, readErr := h.text(dir + "gids/" + e.Name())
		addr, parseErr := netip.ParseAddr(text)
		if errors.Join(err, readErr, parseErr) != nil || addr.IsUnspecified() {
			continue // one that is not used is all zeros
		}
		netdev, _ := h.text(dir + "gid_attrs/ndevs/" + e.Name())
		gids = append(gids, GID{index, addr.Unmap(), netdev})
	}
	slices.SortFunc(gids, func(a, b GID) int { return a.Index - b.Index })
	return gids, nil
}

// text reads an attribute.
func (h *Host) text(name string) (string, error) {
	b, err := fs.ReadFile(h.sys, name)
	return strings.TrimSpace(string(b)), err
}

// colons returns a GUID of sysfs, 0002:c903:00a1:b2c3, as [hw.GUID] has it.
func colons(guid string) hw.GUID {
	digits := strings.ReplaceAll(guid, ":", "")
	var parts []string
	for len(digits) >= 2 {
		parts, digits = append(parts, digits[:2]), digits[2:]
	}
	return hw.GUID(strings.Join(parts, ":"))
}
