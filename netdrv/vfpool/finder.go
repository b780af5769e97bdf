package vfpool

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/netdrv/option"
)

// A Finder finds the devices that the option netdevice names.
type Finder struct {
	Host *hw.Host
	// Names are the names that the operator of this machine has given to devices; each stands for one or more terms of the option
	// netdevice. With them the same network can be created on machines whose NICs differ. Names may be nil; its error is for the user.
	Names func() (map[string][]string, error)
}

// terms splits the option netdevice, and replaces the operator's names, in the order of the option.
func (f *Finder) terms(netdevice string) ([]string, error) {
	named := map[string][]string{}
	if f.Names != nil {
		var err error
		if named, err = f.Names(); err != nil {
			return nil, err
		}
	}
	var all []string
	for _, t := range strings.Split(netdevice, ",") {
		t = strings.TrimSpace(t)
		switch stands, ok := named[t]; {
		case t == "":
			return nil, fmt.Errorf("option netdevice: %q has an empty name in it", netdevice)
		case ok:
			all = append(all, stands...)
		default:
			all = append(all, t)
		}
	}
	return all, nil
}

// PFs returns the PFs that the option netdevice names, each once.
func (f *Finder) PFs(netdevice string) ([]hw.PF, error) {
	terms, err := f.terms(netdevice)
	if err != nil {
		return nil, err
	}
	var all []hw.PF
	for _, t := range terms {
		pfs, err := f.Host.PFs(t)
		if err != nil {
			return nil, fmt.Errorf("option netdevice: %w", f.withNICs(err))
		}
		for _, pf := range pfs {
			if !slices.ContainsFunc(all, func(have hw.PF) bool { return have.ID == pf.ID }) {
				all = append(all, pf)
			}
		}
	}
	return all, nil
}

// VLAN returns the device and the VLAN that the option netdevice names as in eth0.100; vlan is 0 if it does not, or if there is no such
// device.
func (f *Finder) VLAN(netdevice string) (parent hw.Netdev, vlan int, _ error) {
	terms, err := f.terms(netdevice)
	if err != nil || len(terms) != 1 {
		return parent, 0, err
	}
	i := max(0, strings.LastIndexByte(terms[0], '.'))
	vlan, ok := number.Parse(strings.TrimPrefix(terms[0][i:], "."), 1, 4094)
	if i == 0 || !ok {
		return parent, 0, nil
	}
	parent, err = f.Host.Netdev(terms[0][:i])
	if errors.Is(err, hw.ErrNotFound) {
		return parent, 0, nil
	}
	return parent, vlan, err
}

// Netdev returns the one device that the option netdevice names.
func (f *Finder) Netdev(netdevice string) (hw.Netdev, error) {
	terms, err := f.terms(netdevice)
	if err == nil && len(terms) > 1 {
		err = fmt.Errorf("option netdevice: %s are several devices; only mode=%s takes more than one",
			strings.Join(terms, ", "), option.ModeSRIOV)
	}
	if err != nil {
		return hw.Netdev{}, err
	}
	n, err := f.Host.Netdev(terms[0])
	if err == nil {
		err = f.Host.CheckIdentity(n)
	}
	if err != nil {
		err = fmt.Errorf("option netdevice: %w", f.withNICs(err))
	}
	return n, err
}

// mostNamed is how many NICs an error names.
const mostNamed = 8

// withNICs adds the NICs of the host to an error that a device is not there.
func (f *Finder) withNICs(err error) error {
	if !errors.Is(err, hw.ErrNotFound) {
		return err
	}
	nics, listErr := f.Host.NICs()
	if listErr != nil || len(nics) == 0 {
		return err
	}
	var names []string
	for _, n := range nics[:min(len(nics), mostNamed)] {
		names = append(names, n.Name)
	}
	if more := len(nics) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w; the NICs of this host are %s", err, strings.Join(names, ", "))
}
