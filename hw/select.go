package hw

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// vendorDevice is a PCI ID as lspci -nn prints it. A PCI address has a dot as well, so the two cannot be confused.
var vendorDevice = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)

// driverPrefix introduces the name of a PF's driver.
const driverPrefix = "driver:"

// PFs returns the PFs that ref selects: the one of that name, alternative name or PCI address, or all that have a PCI ID
// ("8086:10c9"), a driver ("driver:igb") or a name like a pattern ("ens1f*", see path.Match). The error matches
// ErrNotFound when nothing fits, ErrInvalid when the pattern is none, and says of what fits why none of it is a PF with
// VFs to give, see LegacyPF; of what a pattern selects, devices that are no such PFs are left out.
func (h *pfs) PFs(ref string) ([]PF, error) {
	lower := strings.ToLower(ref)
	switch {
	case vendorDevice.MatchString(lower):
		return h.usable(ref, h.functions(func(pci string) (bool, error) { return h.hasPCIID(pci, lower) }))
	case strings.HasPrefix(lower, driverPrefix):
		name := ref[len(driverPrefix):]
		return h.usable(ref, h.functions(func(pci string) (bool, error) {
			d, err := h.driverOf(pci)
			return d == name, err
		}))
	case strings.ContainsAny(ref, "*?["):
		return h.usable(ref, h.named(ref))
	}
	pf, err := h.LegacyPF(ref)
	if err != nil {
		return nil, err
	}
	return []PF{pf}, nil
}

// A selection lists what fits, in words that PF understands.
type selection func() ([]string, error)

// usable are the PFs among what a selection lists.
func (h *pfs) usable(ref string, list selection) ([]PF, error) {
	fits, err := list()
	if err != nil {
		return nil, &Error{Dev: ref, Err: err}
	}
	if len(fits) == 0 {
		return nil, &Error{Dev: ref, Err: fmt.Errorf("nothing on this machine fits it: %w", ErrNotFound)}
	}
	var pfs []PF
	var why error
	for _, f := range fits {
		pf, err := h.LegacyPF(f)
		switch {
		case err == nil:
			pfs = append(pfs, pf)
		case errors.Is(err, ErrUnsupported) || errors.Is(err, ErrAway) || errors.Is(err, ErrNotFound):
			why = err
		default:
			return nil, err
		}
	}
	if len(pfs) == 0 {
		return nil, &Error{Dev: ref, Err: why}
	}
	return pfs, nil
}

// functions selects network functions on the PCI bus (class 02xxxx) that can have VFs.
func (h *pfs) functions(fits func(pci string) (bool, error)) selection {
	return func() ([]string, error) {
		all, err := h.sys.list("bus/pci/devices")
		if err != nil {
			return nil, err
		}
		var found []string
		for _, pci := range all {
			class, _, err := h.sys.text(pciDir(pci) + "/class")
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(class, "0x02") || !h.sys.exists(pciDir(pci)+"/sriov_totalvfs") {
				continue
			}
			if ok, err := fits(pci); err != nil {
				return nil, err
			} else if ok {
				found = append(found, pci)
			}
		}
		return found, nil
	}
}

// hasPCIID tells whether a function has the ID "vendor:device".
func (h *pfs) hasPCIID(pci, id string) (bool, error) {
	vendor, _, err := h.sys.text(pciDir(pci) + "/vendor")
	if err != nil {
		return false, err
	}
	device, _, err := h.sys.text(pciDir(pci) + "/device")
	return strings.TrimPrefix(vendor, "0x")+":"+strings.TrimPrefix(device, "0x") == id, err
}

// named selects links in the host whose names are like a pattern.
func (h *pfs) named(pattern string) selection {
	return func() ([]string, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return nil, err
		}
		var found []string
		for _, l := range links {
			ok, err := path.Match(pattern, l.Name)
			if err != nil {
				return nil, fmt.Errorf("not a pattern of names: %w", ErrInvalid)
			}
			if ok {
				found = append(found, l.Name)
			}
		}
		return found, nil
	}
}
