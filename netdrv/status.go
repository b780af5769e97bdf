package netdrv

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// records are what the ledger has: the networks, the endpoints by ID, and the devices that are not free.
type records struct {
	networks  []ledger.Rev[ledger.Network]
	endpoints map[string]ledger.Endpoint
	devices   alloc.Set
}

// records reads the ledger.
func (x *endpoints) records(ctx context.Context) (all records, err error) {
	if all.networks, err = ledger.List[ledger.Network](ctx, x.store, ledger.NetworkPrefix); err != nil {
		return all, err
	}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, x.store, ledger.EndpointPrefix)
	if err != nil {
		return all, err
	}
	all.endpoints = map[string]ledger.Endpoint{}
	for _, e := range endpoints {
		all.endpoints[e.Rec.ID] = e.Rec
	}
	all.devices, err = x.allocs.List(ctx)
	return all, err
}

// Status returns the networks and the devices that are not free, for operators.
func (d *Driver) Status(ctx context.Context) (*admin.Status, error) {
	all, err := d.endpoints.records(ctx)
	if err != nil {
		return nil, err
	}
	status := &admin.Status{Networks: []admin.Network{}, Devices: []admin.Device{}}
	for _, n := range all.networks {
		of, err := networkStatus(n.Rec)
		if err != nil {
			return nil, err
		}
		status.Networks = append(status.Networks, of)
	}
	for _, a := range all.devices {
		status.Devices = append(status.Devices, deviceStatus(a, all.endpoints[a.Endpoint]))
	}
	slices.SortFunc(status.Devices, func(a, b admin.Device) int {
		return cmp.Or(cmp.Compare(a.PF, b.PF), cmp.Compare(a.VF, b.VF), cmp.Compare(a.ID, b.ID))
	})
	return status, nil
}

// networkStatus returns what operators see of a network.
func networkStatus(n ledger.Network) (admin.Network, error) {
	o, err := option.ParseStored(n.Options)
	if err != nil {
		return admin.Network{}, fmt.Errorf("network %s: %w", ledger.ShortID(n.ID), err)
	}
	status := admin.Network{ID: n.ID, Mode: o.Mode, Options: n.Options, Devices: []string{}, Pools: n.Pools}
	for _, d := range n.Devices {
		status.Devices = append(status.Devices, d.Name)
	}
	return status, nil
}

// deviceStatus returns what operators see of a device. e is its endpoint, the zero value for none.
func deviceStatus(a *alloc.Allocation, e ledger.Endpoint) admin.Device {
	return admin.Device{ID: string(a.Device), Label: a.Label, Mode: a.Mode, State: string(a.State), Reason: a.Reason, Since: a.Since,
		Network: a.Network, Endpoint: a.Endpoint, PF: a.PF, VF: a.VF, Parent: string(a.Parent), MAC: string(e.MAC), Addrs: e.Addrs}
}
