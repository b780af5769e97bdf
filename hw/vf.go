package hw

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
)

// VF is one virtual function of a PF. Number 0 is a VF like any other.
type VF struct {
	PF       string // name of the PF
	Index    int
	PCI      string
	Driver   string // "" while it is not bound to one
	Override string // driver_override; "" for none
	Netdev   Netdev // Index 0 when it has no netdev in the host
	Carries  string // a link in the host that stands on that netdev, such as a VLAN; "" for none
}

// ID is the VF's identity. A VF has one port.
func (v VF) ID() ID { return ID(v.PCI) }

// String is what people know the VF by.
func (v VF) String() string { return fmt.Sprintf("vf %d of %s (%s)", v.Index, v.PF, v.PCI) }

// vfDrivers names, for a PF's driver, the driver of its VFs; they are the ones seen in the kernel's sources (6.12,
// drivers/net/ethernet and drivers/virtio). VFs of other drivers are left to the kernel to probe.
var vfDrivers = map[string]string{
	"igb":        "igbvf",
	"ixgbe":      "ixgbevf",
	"i40e":       "iavf",
	"ice":        "iavf",
	"mlx5_core":  "mlx5_core",
	"bnxt_en":    "bnxt_en",
	"virtio-pci": "virtio-pci",
}

// VFs lists the VFs of a PF in order of their index.
func (h *Host) VFs(pf PF) ([]VF, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "list links", Err: err}
	}
	var vfs []VF
	for i := 0; ; i++ {
		pci, err := h.sys.link(pciDir(pf.PCI()) + "/virtfn" + strconv.Itoa(i))
		if err != nil {
			return nil, &Error{Dev: pf.String(), Err: err}
		}
		if pci == "" {
			return vfs, nil
		}
		if !pciAddress.MatchString(pci) {
			return nil, &Error{Dev: pf.String(), Err: fmt.Errorf("virtfn%d leads to %q: %w", i, pci, ErrInvalid)}
		}
		vf, err := h.vf(pf, i, pci, links)
		if err != nil {
			return nil, &Error{Dev: pf.String(), Err: err}
		}
		vfs = append(vfs, vf)
	}
}

// vf reads one VF.
func (h *Host) vf(pf PF, index int, pci string, links []Link) (VF, error) {
	vf := VF{PF: pf.Name, Index: index, PCI: pci}
	var err error
	if vf.Driver, err = h.driverOf(pci); err != nil {
		return vf, err
	}
	if vf.Override, _, err = h.sys.text(pciDir(pci) + "/driver_override"); err != nil {
		return vf, err
	}
	if vf.Override == "(null)" {
		vf.Override = ""
	}
	all, err := h.netdevsAt(pci, links)
	switch {
	case errors.Is(err, errRenamed): // or it appeared after the links were listed, or is going away
		if vf.Netdev, err = h.Find(vf.ID()); errors.Is(err, ErrAway) || errors.Is(err, errRenamed) {
			err = nil // one VF that is in the middle of something must not hide the others
		}
	case len(all) > 0:
		vf.Netdev = all[0]
	}
	vf.Carries = carried(vf.Netdev.Index, links)
	return vf, err
}

// StableMAC is the MAC of a VF that was given none: locally administered, the same at every boot of this machine, and
// different for every VF of every PF. "" when the PF has no Ethernet address to derive it from.
func StableMAC(pf PF, vf int) MAC {
	base := pf.PermMAC
	if base == "" {
		base = pf.MAC
	}
	if pf.Type != "ether" || base == "" {
		return ""
	}
	return madeMAC(fmt.Sprintf("vf mac\x00%s\x00%d", base, vf))
}

// madeMAC is a locally administered MAC made from what nobody else has.
func madeMAC(unique string) MAC {
	sum := sha256.Sum256([]byte(unique))
	return MAC(fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4]))
}
