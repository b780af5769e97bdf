package hw

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// NIC is a netdev of a PCI function that is no VF.
type NIC struct {
	Netdev
	Vendor   string // PCI vendor ID, four hexadecimal digits
	Device   string // PCI device ID
	Speed    int    // of its link in Mbit/s; 0 while that is not known
	Node     int    // its NUMA node, -1 for none
	TotalVFs int    // how many VFs it can have
	NumVFs   int    // how many it has
	NoVFs    error  // why it can have none, nil if it can; it matches ErrUnsupported
}

// NICs lists the NICs in the host's network namespace by their PCI addresses.
func (h *pfs) NICs() ([]NIC, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: "nics", Op: "list links", Err: err}
	}
	var nics []NIC
	for _, l := range links {
		n, err := h.describe(l)
		if errors.Is(err, ErrNotFound) || errors.Is(err, errRenamed) {
			continue // it has just gone, or changes
		}
		if err != nil {
			return nil, err
		}
		if !n.ID.IsPCI() || h.sys.exists(pciDir(n.ID.PCI())+"/physfn") {
			continue
		}
		nic, err := h.nic(n)
		if err != nil {
			return nil, err
		}
		nics = append(nics, nic)
	}
	slices.SortFunc(nics, func(a, b NIC) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name)) })
	return nics, nil
}

// nic reads one NIC.
func (h *pfs) nic(n Netdev) (NIC, error) {
	nic := NIC{Netdev: n, Node: -1}
	dir := pciDir(n.ID.PCI())
	for file, id := range map[string]*string{"/vendor": &nic.Vendor, "/device": &nic.Device} {
		text, _, err := h.sys.text(dir + file)
		if err != nil {
			return nic, &Error{Dev: n.Name, Err: err}
		}
		*id = strings.TrimPrefix(text, "0x")
	}
	// The kernel answers -1 or EINVAL while there is no link (net/core/net-sysfs.c, Linux 6.12).
	if speed, ok, err := h.sys.number("class/net/" + n.Name + "/speed"); err == nil && ok && speed > 0 {
		nic.Speed = speed
	}
	if node, ok, err := h.sys.number(dir + "/numa_node"); err == nil && ok {
		nic.Node = node
	}
	pf, err := h.PF(n.Name)
	switch {
	case err == nil:
		nic.TotalVFs, nic.NumVFs = pf.TotalVFs, pf.NumVFs
	case errors.Is(err, ErrUnsupported):
		nic.NoVFs = err
	case errors.Is(err, ErrNotFound), errors.Is(err, errRenamed): // it has just gone
	default:
		return nic, err
	}
	return nic, nil
}
