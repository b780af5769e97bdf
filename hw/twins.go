package hw

import (
	"fmt"
	"strings"
)

// Identify refuses a netdev that is not the one that is found by its ID: one of several of a PCI function's port, as the
// ports of a NIC's switch are in switchdev mode, which all hang on the function of the PF
// (drivers/net/ethernet/mellanox/mlx5/core/en_rep.c, Linux 6.12). The error matches ErrUnsupported.
func (h *finder) Identify(n Netdev) error {
	found, err := h.Find(n.ID)
	if err == nil && found.Index != n.Index {
		err = n.confused([]string{found.Name})
	}
	return err
}

// CheckUnique refuses a netdev beside which there are others in the host that would be taken for it, were it away. The error
// matches ErrUnsupported.
func (h *finder) CheckUnique(n Netdev) error {
	if !n.ID.IsPCI() {
		return nil
	}
	all, err := settled(n.Name, func() ([]Netdev, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return nil, &Error{Dev: n.Name, Op: "list links", Err: err}
		}
		return h.netdevsAt(n.ID.PCI(), links)
	})
	var others []string
	for _, o := range all {
		if o.ID == n.ID && o.Index != n.Index {
			others = append(others, o.Name)
		}
	}
	if err == nil && len(others) > 0 {
		err = n.confused(others)
	}
	return err
}

// confused is the error about a netdev that is not the only one of its identity.
func (n Netdev) confused(others []string) error {
	return &Error{Dev: n.Name, Err: fmt.Errorf("cannot be told from %s, on the same pci function; ports of a nic in "+
		"switchdev mode are not lent: %w", strings.Join(others, ", "), ErrUnsupported)}
}
