package netdrv

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/hostdev"
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
func (d *Driver) Status(ctx context.Context, r *admin.StatusRequest) (*admin.Status, error) {
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
		of := deviceStatus(a, all.endpoints[a.Endpoint])
		of.Retry, of.Lost = d.reconciler.nextTry(a), d.reconciler.lost.Why(a)
		status.Devices = append(status.Devices, of)
	}
	sort.Slice(status.Devices, func(i, j int) bool {
		a, b := &status.Devices[i], &status.Devices[j]
		return cmp.Or(cmp.Compare(a.PF, b.PF), cmp.Compare(a.VF, b.VF), cmp.Compare(a.ID, b.ID)) < 0
	})
	if status.Programs, err = d.networks.pool.ForPrograms().IDs(ctx); err != nil {
		return nil, err
	}
	if r.Unrecorded {
		status.Unrecorded = d.networks.unrecorded(ctx)
	}
	return status, nil
}

// recordedDevices returns the devices that the ledger has records of. empty is true if it has none of any network or device.
func (x *networks) recordedDevices(ctx context.Context) (held alloc.Set, known map[hw.ID]bool, empty bool, err error) {
	networks, err := ledger.List[ledger.Network](ctx, x.store, ledger.NetworkPrefix)
	if err == nil {
		held, err = x.allocs.List(ctx)
	}
	if err == nil {
		known, err = hostdev.Recorded(ctx, x.store)
	}
	if err != nil {
		return nil, nil, false, err
	}
	for id, a := range held {
		known[id], known[a.Parent] = true, true
		if a.Bond != nil {
			known[hw.MadeID(a.Bond.Key)] = true
		}
	}
	return held, known, len(networks)+len(held) == 0, nil
}

// unrecorded says which devices look as if the plugin had set them up although it has no record of them, as after docker plugin rm, or if the
// host has two plugins, and what to do about each. It changes nothing: only who has set them up knows whether they are in use.
func (x *networks) unrecorded(ctx context.Context) []string {
	found, err := x.unrecordedLinks(ctx)
	if err == nil {
		var vfs []string
		vfs, err = x.unrecordedVFs(ctx)
		found = append(found, vfs...)
	}
	if err != nil && ctx.Err() == nil { // who asked is still there
		found = append(found, fmt.Sprintf("devices without a record could not be looked for: %v", err))
	}
	return found
}

// unrecordedLinks says which links have the plugin's mark, and no record.
func (x *networks) unrecordedLinks(ctx context.Context) (found []string, _ error) {
	_, before, empty, err := x.recordedDevices(ctx)
	if err != nil {
		return nil, err
	}
	// A link in another namespace ends there some time after its record. That its record is gone says something only if there was none.
	links, err := x.pool.Host.MarkedLinks(empty)
	if err != nil {
		return nil, err
	}
	_, after, _, err := x.recordedDevices(ctx) // a record is older than its link, and is deleted after it
	if err != nil {
		return nil, err
	}
	elsewhere := map[string]int{}
	for _, l := range links {
		switch {
		case before[l.ID] || after[l.ID]:
		case l.On != "":
			elsewhere[l.On]++
		case l.Made():
			found = append(found, fmt.Sprintf("%s (%s): another installation of the plugin has made it, and this one has no record of it; if nothing "+
				"uses it: ip link delete %s", l.Name, l.Kind, l.Name))
		default:
			found = append(found, fmt.Sprintf("%s: another installation of the plugin has given it to a container, and this one has no record of it; set "+
				"it up as it was, and remove the mark: ip link set %s alias \"\"", l.Name, l.Name))
		}
	}
	slices.Sort(found)
	for _, on := range slices.Sorted(maps.Keys(elsewhere)) {
		found = append(found, fmt.Sprintf("%s: another installation of the plugin has made what containers have on it (links: %d), and this one has no "+
			"record of that; it goes with its containers; passthroughctl restore FILE brings back the records of a backup", on, elsewhere[on]))
	}
	return found, nil
}

// unrecordedVFs says which PFs have VFs as if the plugin had set them up, and that no record knows.
func (x *networks) unrecordedVFs(ctx context.Context) (found []string, _ error) {
	nics, err := x.pool.Host.NICs()
	if err != nil {
		return nil, err
	}
	for _, n := range nics {
		pf, err := x.pool.Host.PF(n.Name)
		if err != nil { // it can have none, or has just gone
			continue
		}
		text := ""
		for i := range 2 { // again: a VF may just have been given to a container
			if i > 0 && text == "" {
				break
			}
			held, _, empty, err := x.recordedDevices(ctx)
			if err == nil {
				text, err = x.pool.Unrecorded(ctx, pf, held, empty)
			}
			if err != nil {
				return nil, err
			}
		}
		if text != "" {
			found = append(found, text)
		}
	}
	return found, nil
}

// networkStatus returns what operators see of a network.
func networkStatus(n ledger.Network) (admin.Network, error) {
	o, err := option.ParseStored(n.Options)
	if err != nil {
		return admin.Network{}, fmt.Errorf("network %s: %w", ledger.ShortID(n.ID), err)
	}
	status := admin.Network{ID: n.ID, Mode: o.Mode, Options: n.Options, Devices: []string{}, Pools: n.Pools,
		Owner: n.Owner, Name: n.Name}
	for _, d := range n.Devices {
		status.Devices = append(status.Devices, d.Name)
	}
	return status, nil
}

// deviceStatus returns what operators see of a device. e is its endpoint, the zero value for none.
func deviceStatus(a *alloc.Allocation, e ledger.Endpoint) admin.Device {
	of := admin.Device{ID: string(a.Device), Label: a.Label, Mode: a.Mode, State: string(a.State), Reason: a.Reason, Since: a.Since, Before: a.Snapshot.Describe(),
		Network: a.Network, Endpoint: a.Endpoint, PF: a.PF, VF: a.VF, Parent: string(a.Parent), MAC: string(e.MAC), Addrs: e.Addrs,
		Owner: ownerStatus(a)}
	if a.Representor != nil {
		of.Representor = a.Representor.Name
	}
	return of
}

// ownerStatus returns what operators see of the owner of a device, nil for an engine.
func ownerStatus(a *alloc.Allocation) *admin.Owner {
	o := a.Owner
	if o == nil {
		return nil
	}
	return &admin.Owner{Kind: o.Kind, ID: o.ID, Netns: o.Netns, Device: o.Device, Inode: o.Inode, Name: a.OwnerName()}
}
