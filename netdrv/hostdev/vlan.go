// Package hostdev has the devices that the plugin creates in the host for networks, and keeps there as long as a network needs them: VLAN
// devices, on which the children of containers are created, and children of the host itself, by which it reaches containers.
//
// Each has a record, which is written before the device is created. Only a device that has a record, and the mark of the plugin, is
// removed. What an administrator has created is used as it is, and stays.
package hostdev

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// vlanPrefix is that of the keys of vlanRecords.
const vlanPrefix = "vlan/"

// finishBound bounds what is done although the caller's own time is up.
const finishBound = 8 * time.Second

// vlanRecord says that the plugin creates a VLAN device, and on which parent.
type vlanRecord struct {
	record.Extra
	Version    int    `json:"v"`
	Device     hw.ID  `json:"device"` // see hw.VLANDeviceID
	Parent     hw.ID  `json:"parent"`
	ParentName string `json:"parent_name"` // by which a parent without a PCI address is found after a reboot
	VLAN       int    `json:"vlan"`
	Boot       string `json:"boot"`           // the boot in which it was created
	Done       bool   `json:"done,omitempty"` // false while it is being created, and after a crash in the middle of that
}

// vlanKey is the key of a VLAN device's record. It is also the name of its lock, which comes after those of PFs and before those of
// allocations.
func vlanKey(id hw.ID) string { return vlanPrefix + string(id) }

// VLANs creates and removes the VLAN devices of one host.
type VLANs struct {
	Host        *hw.Host
	Store       store.Store
	Log         *zap.Logger
	Locks       *keylock.Map
	Allocations *alloc.Table
	Pool        *vfpool.Pool // knows which devices an administrator has set down
	Counters    *metrics.Counters
}

// Recorded returns the devices that have a record.
func Recorded(ctx context.Context, s store.Store) (map[hw.ID]bool, error) {
	vlans, err := ledger.List[vlanRecord](ctx, s, vlanPrefix)
	if err != nil {
		return nil, err
	}
	children, err := ledger.List[hostRecord](ctx, s, hostPrefix)
	if err != nil {
		return nil, err
	}
	ids := map[hw.ID]bool{}
	for _, r := range vlans {
		ids[r.Rec.Device] = true
	}
	for _, r := range children {
		ids[r.Rec.device()] = true
	}
	return ids, nil
}

// get reads a record; ok is false if there is none.
func get[T any, P record.Pointer[T]](ctx context.Context, s store.Store, key string) (r ledger.Rev[T], ok bool, err error) {
	r, err = ledger.Get[T, P](ctx, s, key)
	if errors.Is(err, store.ErrNotFound) {
		return r, false, nil
	}
	return r, err == nil, err
}

// findParent finds the parent of a device by its identity; one without a PCI address may have been created again since, and is found by its
// name.
func findParent(host *hw.Host, id hw.ID, name string) (hw.Netdev, error) {
	n, err := host.Find(id)
	if err != nil && !id.IsPCI() {
		n, err = host.Netdev(name)
	}
	return n, err
}

// Plan returns the VLAN device on a parent, or, if there is none, what Ensure would create, which has no ifindex. It is an error if another
// device has its name.
func (v *VLANs) Plan(ctx context.Context, parent hw.Netdev, vlan int) (hw.Netdev, error) {
	n, err := v.find(ctx, parent, vlan)
	if err != nil || n.Index != 0 {
		return n, err
	}
	name := hw.VLANName(parent.Name, vlan)
	switch _, err := v.Host.Netdev(name); {
	case err == nil:
		return n, fmt.Errorf("there is another device called %s, which is not vlan %d of %s; rename it", name, vlan, parent.Name)
	case !errors.Is(err, hw.ErrNotFound):
		return n, err
	}
	return hw.Netdev{ID: hw.VLANDeviceID(parent, vlan), Link: hw.Link{Name: name, Kind: hw.VLANDevice, Type: parent.Type, MAC: parent.MAC,
		MTU: parent.MTU, VLAN: vlan}}, nil
}

// find returns the VLAN device on a parent. Its ifindex is 0 if there is none. One that the plugin has created and recorded has the ID of
// [hw.VLANDeviceID].
func (v *VLANs) find(ctx context.Context, parent hw.Netdev, vlan int) (n hw.Netdev, err error) {
	id := hw.VLANDeviceID(parent, vlan)
	_, recorded, err := get[vlanRecord](ctx, v.Store, vlanKey(id))
	if err != nil {
		return n, err
	}
	if recorded {
		if n, err = v.Host.Find(id); !errors.Is(err, hw.ErrAway) {
			return n, err
		}
	}
	return v.Host.VLANOn(parent, vlan)
}

// Ensure returns the VLAN device on a parent, and creates it if there is none: it is recorded before. One that the plugin created gets the
// MTU of its parent. An error leaves nothing that was not there before, or is in the ledger for RemoveUnneeded.
func (v *VLANs) Ensure(ctx context.Context, parent hw.Netdev, vlan int) (hw.Netdev, error) {
	id := hw.VLANDeviceID(parent, vlan)
	unlock, err := v.Locks.Lock(ctx, vlanKey(id))
	if err != nil {
		return hw.Netdev{}, err
	}
	defer unlock()
	return v.ensureLocked(ctx, parent, vlan)
}

func (v *VLANs) ensureLocked(ctx context.Context, parent hw.Netdev, vlan int) (hw.Netdev, error) {
	n, err := v.Plan(ctx, parent, vlan)
	if err != nil {
		return n, err
	}
	id := hw.VLANDeviceID(parent, vlan)
	r, recorded, err := get[vlanRecord](ctx, v.Store, vlanKey(id))
	switch {
	case err != nil:
		return n, err
	case n.Index != 0 && n.ID != id && recorded: // an administrator has created it since
		_, err = ledger.Commit(ctx, v.Store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
		return n, err
	case n.Index != 0 && n.ID != id:
		return n, nil
	case n.Index != 0 && r.Rec.Done && r.Rec.Boot == v.Host.Boot():
		return v.follow(n, parent)
	}
	cond := store.Absent(vlanKey(id))
	if recorded {
		cond = store.Unchanged(r.KV)
	}
	n, err = v.create(ctx, cond, vlanRecord{Extra: r.Rec.Extra, Version: ledger.Version, Device: id, Parent: parent.ID, ParentName: parent.Name,
		VLAN: vlan, Boot: v.Host.Boot()}, parent)
	if err != nil && !recorded {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishBound)
		defer cancel()
		err = errors.Join(err, v.removeLocked(ctx, id))
	}
	return n, err
}

// create creates a VLAN device and marks its record done. It also finishes what a crash has interrupted.
func (v *VLANs) create(ctx context.Context, cond store.Cond, rec vlanRecord, parent hw.Netdev) (hw.Netdev, error) {
	res, err := ledger.Commit(ctx, v.Store, cond, ledger.Put(vlanKey(rec.Device), rec))
	if err != nil {
		return hw.Netdev{}, err
	}
	if !parent.Up {
		v.Pool.Raising(parent)
	}
	n, err := v.Host.CreateVLAN(ctx, parent, rec.VLAN)
	if err != nil {
		return n, err
	}
	v.Counters.Count("vlans_made")
	v.Log.Info("created vlan device", zap.String("device", n.Name), zap.Int("vlan", rec.VLAN))
	rec.Done = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishBound) // it exists, even if the caller has given up
	defer cancel()
	if err := v.Pool.Raised(ctx, parent.ID); err != nil {
		return n, err
	}
	_, err = ledger.Commit(ctx, v.Store, store.Cond{Key: cond.Key, Rev: res.Rev}, ledger.Put(cond.Key, rec))
	return n, err
}

// follow gives a VLAN device the MTU that its parent was raised to. A parent that is lowered lowers it itself.
func (v *VLANs) follow(n, parent hw.Netdev) (hw.Netdev, error) {
	if n.MTU >= parent.MTU {
		return n, nil
	}
	err := v.Host.FollowMTU(n, parent)
	if err == nil {
		n.MTU = parent.MTU
	}
	return n, err
}

// Repair creates VLAN devices again that are missing, as after a reboot or when the driver of the parent was loaded again, and finishes what
// a crash has interrupted. The caller holds the lock of all networks.
func (v *VLANs) Repair(ctx context.Context) error {
	all, err := ledger.List[vlanRecord](ctx, v.Store, vlanPrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range all {
		if err := v.repair(ctx, r.Rec); err != nil && !errors.Is(err, hw.ErrAway) && !errors.Is(err, hw.ErrNotFound) {
			errs = append(errs, fmt.Errorf("vlan %d of %s: %w", r.Rec.VLAN, r.Rec.ParentName, err))
		}
	}
	return errors.Join(errs...)
}

// repair repairs one VLAN device, if its parent is there and up: one that is down is brought up for a container only. A device that a call
// is at work on is left to it.
func (v *VLANs) repair(ctx context.Context, rec vlanRecord) error {
	parent, err := findParent(v.Host, rec.Parent, rec.ParentName)
	if err != nil || !parent.Up || hw.VLANDeviceID(parent, rec.VLAN) != rec.Device {
		return err
	}
	unlock, ok := v.Locks.TryLock(vlanKey(rec.Device))
	if !ok {
		return nil
	}
	defer unlock()
	_, err = v.ensureLocked(ctx, parent, rec.VLAN)
	return err
}

// RemoveUnneeded removes the VLAN devices that the plugin created and no network needs any more. The caller holds the lock of all networks.
// It is an error if the host uses one of them, which then stays.
func (v *VLANs) RemoveUnneeded(ctx context.Context) error {
	all, err := ledger.List[vlanRecord](ctx, v.Store, vlanPrefix)
	if err != nil || len(all) == 0 {
		return err
	}
	var errs []error
	for _, r := range all {
		errs = append(errs, v.remove(ctx, r.Rec.Device))
	}
	return errors.Join(errs...)
}

// remove removes one VLAN device if nothing needs it.
func (v *VLANs) remove(ctx context.Context, id hw.ID) error {
	unlock, err := v.Locks.Lock(ctx, vlanKey(id))
	if err != nil {
		return err
	}
	defer unlock()
	if needed, err := v.needed(ctx, id); needed || err != nil {
		return err
	}
	return v.removeLocked(ctx, id)
}

// needed reports whether a network, or an allocation that is ending, has the device.
func (v *VLANs) needed(ctx context.Context, id hw.ID) (bool, error) {
	networks, err := ledger.List[ledger.Network](ctx, v.Store, ledger.NetworkPrefix)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(networks, func(n ledger.Rev[ledger.Network]) bool {
		return n.Rec.Has(id) || n.Rec.HostDevice != nil && n.Rec.HostDevice.ID == id
	}) {
		return true, nil
	}
	held, err := v.Allocations.List(ctx)
	for _, a := range held {
		if a.Parent == id && !a.FromEarlierBoot() {
			return true, nil
		}
	}
	return false, err
}

// removeLocked removes a VLAN device and its record. The caller holds the device's lock.
func (v *VLANs) removeLocked(ctx context.Context, id hw.ID) error {
	r, recorded, err := get[vlanRecord](ctx, v.Store, vlanKey(id))
	if err != nil || !recorded {
		return err
	}
	n, err := v.Host.Find(id)
	switch {
	case errors.Is(err, hw.ErrAway): // gone with its parent, or never created
	case err != nil:
		return err
	default:
		use, err := v.Host.UsedByHost(n)
		if err == nil && use != "" {
			err = fmt.Errorf("%s, which the plugin created, stays until the host does not use it any more: it %s", n.Name, use)
		}
		if err == nil {
			err = v.Host.RemoveVLAN(id)
		}
		if err != nil {
			return err
		}
		v.Counters.Count("vlans_removed")
		v.Log.Info("removed vlan device", zap.String("device", n.Name))
	}
	_, err = ledger.Commit(ctx, v.Store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	return err
}
