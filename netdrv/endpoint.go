package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// createEndpoint claims a device for an endpoint and makes it ready, or answers from the ledger that it has been done.
func (d *Driver) createEndpoint(ctx context.Context, r *plugin.CreateEndpointRequest) (ledger.Endpoint, error) {
	e := ledger.Endpoint{Version: ledger.Version, Network: r.NetworkID, ID: r.EndpointID}
	if err := checkIDs(e.Network, e.ID); err != nil {
		return e, err
	}
	unlock, err := d.locks.Lock(ctx, ledger.EndpointKey(e.Network, e.ID))
	if err != nil {
		return e, err
	}
	defer unlock()
	have, err := ledger.Get[ledger.Endpoint](ctx, d.store, ledger.EndpointKey(e.Network, e.ID))
	if err == nil {
		return d.answerAgain(ctx, have.Rec)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return e, err
	}
	n, err := d.network(ctx, e.Network)
	if err != nil {
		return e, err
	}
	if n.Options.Container, err = d.containerOptions(ctx, n, r); err != nil {
		return e, err
	}
	if err := d.awaitDrivers(ctx, n.Network); err != nil {
		return e, err
	}
	if i := r.Interface; i != nil {
		e.IPv4, e.IPv6 = i.Address != "", i.AddressIPv6 != ""
		e.Subnets = subnetsOf(n.Network.Pools, i.Address, i.AddressIPv6)
		e.Addrs = slices.DeleteFunc([]string{i.Address, i.AddressIPv6}, func(a string) bool { return a == "" })
		n.Address = cmp.Or(e.Addrs...)
	}
	n.Container = d.nameOf(ctx, n.Network.Pools, r.Interface)
	n.Endpoint = e.ID
	e.Prefix = n.Options.Prefix
	return d.lend(ctx, n, e)
}

// answerAgain answers a repeated request from the record, if the endpoint has a device that is ready.
func (d *Driver) answerAgain(ctx context.Context, e ledger.Endpoint) (ledger.Endpoint, error) {
	l, err := d.allocs.Get(ctx, e.Device)
	if err == nil && l.State != alloc.Ready && l.State != alloc.Lent {
		err = fmt.Errorf("endpoint %s: its device is being put back after a crash; try again", ledger.ShortID(e.ID))
	}
	return e, err
}

// containerOptions returns the network's values, overridden by what the user gave for this container: --mac-address and driver-opt.
func (d *Driver) containerOptions(ctx context.Context, n *mode.Request, r *plugin.CreateEndpointRequest) (option.Container, error) {
	own, err := option.OfContainer(r.Options)
	if err != nil {
		return option.Container{}, err
	}
	c, err := n.Options.ForContainer(own)
	if err != nil {
		return c, err
	}
	if r.Interface != nil && r.Interface.MacAddress != "" {
		mac, err := option.ParseMAC(r.Interface.MacAddress)
		if err == nil && c.MAC != "" && c.MAC != mac {
			err = fmt.Errorf("option mac: %s is not the --mac-address %s", c.MAC, mac)
		}
		if err != nil {
			return c, err
		}
		c.MAC = mac
	}
	if c.VLAN == nil || n.Options.VLAN != nil && *n.Options.VLAN == *c.VLAN {
		return c, nil
	}
	_, others, err := d.networks(ctx, n.Network.ID)
	if err != nil {
		return c, err
	}
	return c, mode.CheckVLAN(c.VLAN, n.Network.Devices, others)
}

// join answers where the engine finds the endpoint's device.
func (d *Driver) join(ctx context.Context, r *plugin.JoinRequest) (*plugin.JoinResponse, error) {
	if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
		return nil, err
	}
	unlock, err := d.locks.Lock(ctx, ledger.EndpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := d.network(ctx, r.NetworkID)
	if err != nil {
		return nil, err
	}
	e, err := ledger.Get[ledger.Endpoint](ctx, d.store, ledger.EndpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", ledger.ShortID(r.EndpointID), err)
	}
	unlockDevice, err := d.locks.Lock(ctx, alloc.Key(e.Rec.Device)) // the reconciler may take the endpoint for an orphan
	if err != nil {
		return nil, err
	}
	defer unlockDevice()
	l, err := d.allocs.Get(ctx, e.Rec.Device)
	if err == nil && (l.Endpoint != r.EndpointID || l.State == alloc.Freeing || l.State == alloc.Quarantined) {
		err = errors.New("is being put back, because nobody joined it in time; start the container again")
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: device %s: %w", ledger.ShortID(r.EndpointID), e.Rec.Device, err)
	}
	dev, err := d.host.Find(l.Device)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be moved into the container: %w", l.Label, err)
	}
	if l.State != alloc.Lent {
		if err := d.allocs.Advance(ctx, l, alloc.Lent); err != nil {
			return nil, err
		}
	}
	res := &plugin.JoinResponse{InterfaceName: plugin.InterfaceName{SrcName: dev.Name, DstPrefix: e.Rec.Prefix}}
	gateways(n.Network, e.Rec, res)
	return res, nil
}

// deleteEndpoint forgets an endpoint and puts its device back, waiting for it for as long as patience. The engine ignores
// errors of this call and never repeats it, so that what cannot be done now is left to the reconciler.
func (d *Driver) deleteEndpoint(ctx context.Context, nid, eid string, patience time.Duration) error {
	if err := checkIDs(nid, eid); err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, ledger.EndpointKey(nid, eid))
	if err != nil {
		return err
	}
	defer unlock()
	e, err := ledger.Get[ledger.Endpoint](ctx, d.store, ledger.EndpointKey(nid, eid))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	unlockDevice, err := d.locks.Lock(ctx, alloc.Key(e.Rec.Device))
	if err != nil {
		return err
	}
	defer unlockDevice()
	l, err := d.allocs.Get(ctx, e.Rec.Device)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && l.Endpoint != eid:
		_, err = ledger.Transact(ctx, d.store, nil, ledger.Del(e.KV.Key))
		return err
	case err != nil:
		return err
	case l.State == alloc.Freeing || l.State == alloc.Quarantined: // the reconciler was quicker
		return nil
	}
	if err := d.allocs.Advance(ctx, l, alloc.Freeing, ledger.Del(e.KV.Key)); err != nil {
		return err
	}
	d.bringHome(ctx, l, patience)
	if l.HasParts() {
		d.freeParts(ctx, l.Device)
	}
	return nil
}
