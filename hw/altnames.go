package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// altNames are a device's alternative names as a snapshot has them: never nil.
func (n Netdev) altNames() []string {
	return append([]string{}, slices.Sorted(slices.Values(n.AltNames))...)
}

// restoreNames gives a device its old name, and its alternative ones.
func (h *links) restoreNames(n Netdev, was Snapshot) error {
	err := h.rename(n, was.Link.Name)
	now, findErr := h.Find(n.ID)
	if findErr != nil {
		return errors.Join(err, findErr)
	}
	return errors.Join(err, h.restoreAltNames(now, was.AltNames, nil))
}

// restoreAltNames takes from a device the alternative names that it did not have before, and gives it those that it has
// lost. A name is taken for all devices, so that whoever was lent one could keep another from coming home under its own
// name, or be found in its place. udev names a device that comes home (systemd.link, AlternativeNamesPolicy), mostly as it
// did before; what else is its doing, given tells, and stays. Nothing is done when it is not known what there was (nil).
func (h *links) restoreAltNames(n Netdev, was []string, given func(name string) bool) error {
	if was == nil {
		return nil
	}
	var errs []error
	for _, name := range n.AltNames {
		if slices.Contains(was, name) || name == n.nameOfMAC() || given != nil && given(name) {
			continue
		}
		err := wrapped(n.Name, "remove alternative name "+name, h.kernel.RemoveAltName(n.Index, name))
		if !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	for _, name := range was {
		if name == n.Name || slices.Contains(n.AltNames, name) {
			continue
		}
		err := wrapped(n.Name, "add alternative name "+name, h.kernel.AddAltName(n.Index, name))
		if !errors.Is(err, fs.ErrExist) { // udev was quicker, or it is another's by now
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// nameOfMAC is the name that udev makes of the MAC that a device was made with, "" if it has none.
func (n Netdev) nameOfMAC() string {
	if n.PermMAC == "" || n.Type != "ether" {
		return ""
	}
	return "enx" + strings.ReplaceAll(string(n.PermMAC), ":", "")
}

// portSuffix is what udev adds to a name for the port of a NIC (phys_port_name).
var portSuffix = regexp.MustCompile(`np?[0-9]+$`)

// givenTo tells whether a name is one that udev gives to a VF: it makes them of each of those that the PF has, without the
// port, with the VF's number, and with the port if the VF has one (systemd.net-naming-scheme, since v240).
func givenTo(vf VF, pf PF, name string) bool {
	return slices.ContainsFunc(append([]string{pf.Name}, pf.AltNames...), func(of string) bool {
		own := fmt.Sprintf("%sv%d", portSuffix.ReplaceAllString(of, ""), vf.Index)
		rest, ok := strings.CutPrefix(name, own)
		return ok && (rest == "" || portSuffix.FindString(rest) == rest)
	})
}
