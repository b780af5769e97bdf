package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// terms are the devices that the option netdevice names, in its order. A name that the operator of this machine has given
// to some devices stands for them: the same network can then be made on machines whose NICs differ.
func (d *Driver) terms(netdevice string) ([]string, error) {
	named := map[string][]string{}
	if d.devices != nil {
		var err error
		if named, err = d.devices(); err != nil {
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

// selectPFs finds the PFs that the option netdevice names, each once.
func (d *Driver) selectPFs(netdevice string) ([]hw.PF, error) {
	terms, err := d.terms(netdevice)
	if err != nil {
		return nil, err
	}
	var all []hw.PF
	for _, t := range terms {
		pfs, err := d.host.PFs(t)
		if err != nil {
			return nil, fmt.Errorf("option netdevice: %w", err)
		}
		for _, pf := range pfs {
			if !slices.ContainsFunc(all, func(have hw.PF) bool { return have.ID == pf.ID }) {
				all = append(all, pf)
			}
		}
	}
	return all, nil
}

// device is the one device that the option netdevice names.
func (d *Driver) device(netdevice string) (hw.Netdev, error) {
	terms, err := d.terms(netdevice)
	if err == nil && len(terms) > 1 {
		err = fmt.Errorf("option netdevice: %s are several devices; only mode=%s takes more than one",
			strings.Join(terms, ", "), option.ModeSRIOV)
	}
	if err != nil {
		return hw.Netdev{}, err
	}
	n, err := d.host.Netdev(terms[0])
	if err == nil {
		err = d.host.Identify(n)
	}
	if err != nil {
		err = fmt.Errorf("option netdevice: %w", err)
	}
	return n, err
}

// offers are the network's PFs with their VFs, which are made anew where the machine was started anew or the PF plugged
// in again. A PF that is gone or broken takes only its own VFs out of the network: gone says why. The caller holds the
// PFs' locks.
func (d sriov) offers(ctx context.Context, n *network) (offers []offer, gone []error, _ error) {
	all, errs := make([]offer, len(n.Devices)), make([]error, len(n.Devices))
	var wg sync.WaitGroup
	for i, dev := range n.Devices { // at the same time: VFs may have to be made, see shareAll
		wg.Go(func() { all[i], errs[i] = d.offer(ctx, dev.ID.PCI(), n.Cores.CPUs) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			gone = append(gone, err)
			continue
		}
		offers = append(offers, all[i])
	}
	if len(offers) == 0 {
		return nil, nil, fmt.Errorf("network %s: %w", ledger.ShortID(n.ID), errors.Join(gone...))
	}
	return offers, gone, nil
}

// offer reads a PF and its VFs.
func (d sriov) offer(ctx context.Context, pci string, cpus hw.CPUs) (o offer, err error) {
	if o.pf, err = d.host.LegacyPF(pci); err != nil {
		return o, err
	}
	if o.pf.NumVFs == 0 {
		if err := d.share(ctx, o.pf, 0); err != nil {
			return o, err
		}
	}
	if o.vfs, err = d.host.VFs(o.pf); err != nil {
		return o, err
	}
	if o.states, err = d.host.VFStates(o.pf); err != nil {
		return o, err
	}
	o.near, err = d.host.Near(o.pf, cpus)
	return o, err
}
