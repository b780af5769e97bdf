package hostdev

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// hostPrefix is that of the keys of hostRecords.
const hostPrefix = "host/"

// hostRecord says that the plugin creates a child for the host, and how.
type hostRecord struct {
	record.Extra
	Version    int              `json:"v"`
	Network    string           `json:"network"`
	Child      hw.HostChildSpec `json:"child"`
	ParentName string           `json:"parent_name"` // by which a parent without a PCI address is found after a reboot
	Boot       string           `json:"boot"`        // the boot in which it was created
	Done       bool             `json:"done,omitempty"`
}

// device is the identity of the child.
func (r hostRecord) device() hw.ID { return hw.MadeID(r.Child.Key) }

// hostKey is the key of the record of a network's host child. It is also the name of its lock, which comes after those of allocations.
func hostKey(nid string) string { return hostPrefix + nid }

// HostChildren creates and removes the children that the host has of the devices of networks, so that host and containers reach each other.
type HostChildren struct {
	Host        *hw.Host
	Store       store.Store
	Log         *zap.Logger
	Locks       *keylock.Map
	Allocations *alloc.Table
	VLANs       *VLANs
	Counters    *metrics.Counters
}

// Ensure creates the host's child of a network, with its addresses, if it is missing: it is recorded before. The network's host
// parent is the parent; a VLAN device that is missing is created. A network without host access has none.
func (x *HostChildren) Ensure(ctx context.Context, n ledger.Network, o *option.Network) error {
	if !o.HostAccess || len(n.Devices) == 0 {
		return nil
	}
	parent := n.HostParent()
	spec := hw.HostChildSpec{ChildSpec: o.HostChildSpec(), Addrs: n.HostAddrs}
	spec.Key, spec.Parent, spec.MAC = hw.HostChildKey(n.ID), parent.ID, ""
	if o.MTU != nil {
		spec.MTU = *o.MTU
	}
	if n.HostDevice != nil {
		if _, err := x.parent(ctx, o, n.Devices, x.VLANs.Ensure); err != nil {
			return err
		}
	}
	unlock, err := x.Locks.Lock(ctx, hostKey(n.ID))
	if err != nil {
		return err
	}
	defer unlock()
	err = x.ensureLocked(ctx, hostRecord{Version: ledger.Version, Network: n.ID, Child: spec, ParentName: parent.Name})
	if err != nil {
		err = fmt.Errorf("host access: %w", err)
	}
	return err
}

// Plan returns the device that the host's child of a network is on, if that is not the first of its devices: the VLAN device of its PF, which
// Ensure creates if there is none.
func (x *HostChildren) Plan(ctx context.Context, o *option.Network, devices []ledger.Device) (*ledger.Device, error) {
	return x.parent(ctx, o, devices, x.VLANs.Plan)
}

// parent returns the device that the host's child is on, as Plan does; vlan finds or creates a VLAN device.
func (x *HostChildren) parent(ctx context.Context, o *option.Network, devices []ledger.Device,
	vlan func(ctx context.Context, parent hw.Netdev, vlan int) (hw.Netdev, error)) (*ledger.Device, error) {
	if !o.HostAccess || !o.UsesVFs() || o.VLAN == nil || *o.VLAN == 0 {
		return nil, nil
	}
	pf, err := x.Host.Find(devices[0].ID)
	if err != nil {
		return nil, err
	}
	n, err := vlan(ctx, pf, *o.VLAN)
	if err != nil {
		return nil, fmt.Errorf("option host_access: %w", err)
	}
	return &ledger.Device{ID: n.ID, Name: n.Name}, nil
}

// ensureLocked creates or completes a child. One that was to be another is removed before.
func (x *HostChildren) ensureLocked(ctx context.Context, want hostRecord) error {
	parent, err := findParent(x.Host, want.Child.Parent, want.ParentName)
	if err != nil {
		return err
	}
	r, recorded, err := get[hostRecord](ctx, x.Store, hostKey(want.Network))
	if err != nil {
		return err
	}
	want.Extra, want.Boot = r.Rec.Extra, x.Host.Boot()
	n, err := x.Host.Find(want.device())
	if err != nil && !errors.Is(err, hw.ErrAway) {
		return err
	}
	there := err == nil && recorded && r.Rec.Boot == want.Boot
	same := reflect.DeepEqual(r.Rec.Child, want.Child)
	switch {
	case there && same && r.Rec.Done && n.Peer == parent.Index:
		return nil
	case there && (!same || n.Peer != parent.Index):
		if err := x.Host.RemoveChild(want.device(), want.Child.Kind); err != nil {
			return err
		}
		fallthrough
	case !there:
		if err := x.CheckAddrs(want.Child.Addrs, n.Name); err != nil {
			return err
		}
	}
	cond := store.Absent(hostKey(want.Network))
	if recorded {
		cond = store.Unchanged(r.KV)
	}
	res, err := ledger.Commit(ctx, x.Store, cond, ledger.Put(cond.Key, want))
	if err != nil {
		return err
	}
	spec := want.Child
	spec.Parent = parent.ID
	made, err := x.Host.CreateHostChild(ctx, spec)
	if err != nil {
		return err
	}
	x.Counters.Count("host_children_made")
	x.Log.Info("created the host's own child", zap.String("device", made.Name), zap.String("network", ledger.ShortID(want.Network)))
	want.Done = true
	_, err = ledger.Commit(ctx, x.Store, store.Cond{Key: cond.Key, Rev: res.Rev}, ledger.Put(cond.Key, want))
	return err
}

// CheckAddrs refuses an address that the host has already, on another device than own: it would have it twice.
func (x *HostChildren) CheckAddrs(addrs []netip.Addr, own string) error {
	for _, a := range addrs {
		name, err := x.Host.DeviceWith(a)
		if err != nil {
			return err
		}
		if name != "" && name != own {
			return fmt.Errorf("%s has address %s already; reserve another with --aux-address", name, a)
		}
	}
	return nil
}

// AddRoutes adds the routes to the addresses of an endpoint, if the network has host access.
func (x *HostChildren) AddRoutes(ctx context.Context, e ledger.Endpoint) error {
	return x.route(ctx, e.Network, func(n hw.Netdev, src []netip.Addr) error { return x.Host.AddHostRoutes(n, src, addresses(e)) })
}

// RemoveRoutes removes the routes of AddRoutes.
func (x *HostChildren) RemoveRoutes(ctx context.Context, e ledger.Endpoint) error {
	return x.route(ctx, e.Network, func(n hw.Netdev, src []netip.Addr) error { return x.Host.RemoveHostRoutes(n, src, addresses(e)) })
}

// sync makes the routes through a network's host child those to its containers. It leaves a network alone while a call ends a container on
// it: that call removes the container's route.
func (x *HostChildren) sync(ctx context.Context, nid string) error {
	if busy, err := x.ending(ctx, nid); busy || err != nil {
		return err
	}
	return x.route(ctx, nid, func(n hw.Netdev, src []netip.Addr) error {
		endpoints, err := ledger.List[ledger.Endpoint](ctx, x.Store, ledger.EndpointsOf(nid))
		if err != nil {
			return err
		}
		var to []netip.Addr
		for _, e := range endpoints {
			switch a, err := x.Allocations.Get(ctx, e.Rec.Device); {
			case err == nil && a.State == alloc.Lent && a.Endpoint == e.Rec.ID:
				to = append(to, addresses(e.Rec)...)
			case err != nil && !errors.Is(err, store.ErrNotFound):
				return err
			}
		}
		return x.Host.SyncHostRoutes(n, src, to)
	})
}

// ending reports whether a call is at work on a device that comes home from a container of a network.
func (x *HostChildren) ending(ctx context.Context, nid string) (bool, error) {
	held, err := x.Allocations.List(ctx)
	if err != nil {
		return false, err
	}
	for _, a := range held {
		if a.Network != nid || !a.Ending() {
			continue
		}
		unlock, ok := x.Locks.TryLock(alloc.Key(a.Device))
		if !ok {
			return true, nil
		}
		unlock()
	}
	return false, nil
}

// addresses returns the addresses of an endpoint.
func addresses(e ledger.Endpoint) (all []netip.Addr) {
	for _, cidr := range e.Addrs {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			all = append(all, p.Addr())
		}
	}
	return all
}

// route calls change with a network's host child and its addresses. If there is none, or it is missing or down, it gets its routes when it
// is there.
func (x *HostChildren) route(ctx context.Context, nid string, change func(n hw.Netdev, src []netip.Addr) error) error {
	unlock, err := x.Locks.Lock(ctx, hostKey(nid))
	if err != nil {
		return err
	}
	defer unlock()
	r, recorded, err := get[hostRecord](ctx, x.Store, hostKey(nid))
	if err != nil || !recorded {
		return err
	}
	n, err := x.Host.Find(r.Rec.device())
	if errors.Is(err, hw.ErrAway) || err == nil && !n.Up {
		return nil
	}
	if err != nil {
		return err
	}
	return change(n, r.Rec.Child.Addrs)
}

// Repair creates children of the host again that are missing, as after a reboot, finishes what a crash has interrupted, and repairs routes.
// The caller holds the lock of all networks.
func (x *HostChildren) Repair(ctx context.Context) error {
	all, err := ledger.List[hostRecord](ctx, x.Store, hostPrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range all {
		err := x.repair(ctx, r.Rec)
		if err == nil {
			err = x.sync(ctx, r.Rec.Network)
		}
		if err != nil && !errors.Is(err, hw.ErrAway) && !errors.Is(err, hw.ErrNotFound) {
			errs = append(errs, fmt.Errorf("network %s: host access: %w", ledger.ShortID(r.Rec.Network), err))
		}
	}
	return errors.Join(errs...)
}

func (x *HostChildren) repair(ctx context.Context, rec hostRecord) error {
	unlock, err := x.Locks.Lock(ctx, hostKey(rec.Network))
	if err != nil {
		return err
	}
	defer unlock()
	parent, err := findParent(x.Host, rec.Child.Parent, rec.ParentName)
	if err != nil || !parent.Up { // one that is down is brought up for a container only
		return err
	}
	rec.Done = false
	return x.ensureLocked(ctx, rec)
}

// RemoveUnneeded removes the children of the host whose network is gone. The caller holds the lock of all networks.
func (x *HostChildren) RemoveUnneeded(ctx context.Context) error {
	all, err := ledger.List[hostRecord](ctx, x.Store, hostPrefix)
	if err != nil || len(all) == 0 {
		return err
	}
	var errs []error
	for _, r := range all {
		errs = append(errs, x.remove(ctx, r.Rec.Network))
	}
	return errors.Join(errs...)
}

// remove removes the host's child of a network that is gone. What the host has configured on it, such as an address, goes with it.
func (x *HostChildren) remove(ctx context.Context, nid string) error {
	unlock, err := x.Locks.Lock(ctx, hostKey(nid))
	if err != nil {
		return err
	}
	defer unlock()
	n, err := ledger.Get[ledger.Network](ctx, x.Store, ledger.NetworkKey(nid))
	if err != nil && !errors.Is(err, store.ErrNotFound) || err == nil && len(n.Rec.HostAddrs) > 0 {
		return err
	}
	r, recorded, err := get[hostRecord](ctx, x.Store, hostKey(nid))
	if err != nil || !recorded {
		return err
	}
	if err := x.Host.RemoveChild(r.Rec.device(), r.Rec.Child.Kind); err != nil {
		return err
	}
	x.Counters.Count("host_children_removed")
	_, err = ledger.Commit(ctx, x.Store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	return err
}
