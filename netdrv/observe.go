package netdrv

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/option"
)

// Ready returns nil once the ledger has been compared with the kernel. It waits for nothing.
func (d *Driver) Ready() error {
	if d.reconciler.passed.Load() {
		return nil
	}
	return errors.New("the ledger has not been compared with the kernel yet")
}

// Observe returns what the metrics show of networks and devices. It reads the ledger and the kernel, takes no lock that a call waits for, and
// changes nothing. A device that cannot be read is left out.
func (d *Driver) Observe(ctx context.Context) (*metrics.Observation, error) {
	all, err := d.endpoints.records(ctx)
	if err != nil {
		return nil, err
	}
	o := &metrics.Observation{Networks: map[string]int{}}
	ids := map[hw.ID]bool{}
	for _, n := range all.networks {
		if parsed, err := option.ParseStored(n.Rec.Options); err == nil {
			o.Networks[parsed.Mode]++
		}
		for _, of := range n.Rec.Devices {
			ids[of.ID] = true
		}
	}
	for _, a := range all.devices {
		o.Devices = append(o.Devices, observed(a, all.endpoints[a.Endpoint]))
		if a.PF != "" {
			ids[hw.ID(a.PF)] = true
		}
	}
	sort.Slice(o.Devices, func(i, j int) bool { return o.Devices[i].ID < o.Devices[j].ID })
	observeHost(d.reconciler.host, slices.Sorted(maps.Keys(ids)), o)
	return o, nil
}

// observed returns what the metrics show of an allocation. e is its endpoint, the zero value for none.
func observed(a *alloc.Allocation, e ledger.Endpoint) metrics.Device {
	return metrics.Device{ID: string(a.Device), Label: a.Label, Mode: a.Mode, State: string(a.State), Since: a.Since, Network: a.Network,
		Endpoint: a.Endpoint, PF: a.PF, VF: a.VF, VLAN: a.VFSpec.VLAN.ID, Addresses: e.Addrs}
}

// observeHost adds the devices of the host. One that is in a container is left out.
func observeHost(host *hw.Host, ids []hw.ID, o *metrics.Observation) {
	seen := map[string]bool{}
	for _, id := range ids {
		n, err := host.Find(id)
		if err != nil || seen[n.Name] {
			continue
		}
		seen[n.Name] = true
		l := metrics.Link{Name: n.Name, Up: n.Up, Carrier: n.Carrier}
		l.Counters, l.Counted = host.Counters(n)
		// An error leaves out what it is about, as for a device that has just gone.
		l.Driver, _ = host.DriverInfo(n)
		l.Rings, l.MaxRings, _ = host.Rings(n)
		o.Links = append(o.Links, l)
		if !id.IsPCI() {
			continue
		}
		pf, err := host.PF(id.PCI())
		if err != nil || pf.NumVFs == 0 || seen[pf.PCI()] {
			continue
		}
		seen[pf.PCI()] = true
		of := metrics.PF{PCI: pf.PCI(), Name: pf.Name, VFs: pf.NumVFs}
		of.Counters, of.Unread = host.VFCounters(pf)
		o.PFs = append(o.PFs, of)
	}
}
