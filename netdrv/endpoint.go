package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// createEndpoint claims a device for an endpoint and makes it ready, or answers from the ledger that it has been done.
func (d *Driver) createEndpoint(ctx context.Context, r *plugin.CreateEndpointRequest) (endpointRecord, error) {
	e := endpointRecord{Version: recordVersion, Network: r.NetworkID, ID: r.EndpointID}
	if err := checkIDs(e.Network, e.ID); err != nil {
		return e, err
	}
	unlock, err := d.locks.Lock(ctx, endpointKey(e.Network, e.ID))
	if err != nil {
		return e, err
	}
	defer unlock()
	have, err := read[endpointRecord](ctx, d.store, endpointKey(e.Network, e.ID))
	if err == nil {
		return d.answerAgain(ctx, have.rec)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return e, err
	}
	n, err := d.network(ctx, e.Network)
	if err != nil {
		return e, err
	}
	if n.Container, err = d.containerOptions(ctx, n, r); err != nil {
		return e, err
	}
	if err := d.awaitDrivers(ctx, n); err != nil {
		return e, err
	}
	if i := r.Interface; i != nil {
		e.IPv4, e.IPv6 = i.Address != "", i.AddressIPv6 != ""
		e.Subnets = subnetsOf(n.Pools, i.Address, i.AddressIPv6)
		e.Addrs = slices.DeleteFunc([]string{i.Address, i.AddressIPv6}, func(a string) bool { return a == "" })
		n.address = cmp.Or(e.Addrs...)
	}
	n.container = d.nameOf(ctx, n, r)
	if n.prefer, err = d.preferred(ctx, n); err != nil {
		return e, err
	}
	n.endpoint = e.ID
	e.Prefix = n.Prefix
	return d.lend(ctx, n, e)
}

// answerAgain answers a repeated request from the record, if the endpoint has a device that is ready.
func (d *Driver) answerAgain(ctx context.Context, e endpointRecord) (endpointRecord, error) {
	l, err := d.loan(ctx, e.Device)
	if err == nil && l.State != ready && l.State != lent {
		err = fmt.Errorf("endpoint %s: its device is being put back after a crash; try again", short(e.ID))
	}
	return e, err
}

// containerOptions returns the network's values, overridden by what the user gave for this container: --mac-address and driver-opt.
func (d *Driver) containerOptions(ctx context.Context, n *network, r *plugin.CreateEndpointRequest) (option.Container, error) {
	own, err := option.OfContainer(r.Options)
	if err != nil {
		return option.Container{}, err
	}
	c, err := n.ForContainer(own)
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
	if c.VLAN == nil || n.VLAN != nil && *n.VLAN == *c.VLAN {
		return c, nil
	}
	_, others, err := d.networks(ctx, n.ID)
	if err != nil {
		return c, err
	}
	return c, vlanFree(c.VLAN, n.Devices, others)
}

// join answers where the engine finds the endpoint's device.
func (d *Driver) join(ctx context.Context, r *plugin.JoinRequest) (*plugin.JoinResponse, error) {
	if err := checkIDs(r.NetworkID, r.EndpointID); err != nil {
		return nil, err
	}
	unlock, err := d.locks.Lock(ctx, endpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := d.network(ctx, r.NetworkID)
	if err != nil {
		return nil, err
	}
	e, err := read[endpointRecord](ctx, d.store, endpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", short(r.EndpointID), err)
	}
	unlockDevice, err := d.locks.Lock(ctx, loanKey(e.rec.Device)) // the reconciler may take the endpoint for an orphan
	if err != nil {
		return nil, err
	}
	defer unlockDevice()
	l, err := d.loan(ctx, e.rec.Device)
	if err == nil && (l.Endpoint != r.EndpointID || l.State == freeing || l.State == quarantined) {
		err = errors.New("is being put back, because nobody joined it in time; start the container again")
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: device %s: %w", short(r.EndpointID), e.rec.Device, err)
	}
	dev, err := d.host.Find(l.Device)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be moved into the container: %w", l.Label, err)
	}
	if l.State != lent {
		if err := d.advance(ctx, l, lent); err != nil {
			return nil, err
		}
	}
	res := &plugin.JoinResponse{InterfaceName: plugin.InterfaceName{SrcName: dev.Name, DstPrefix: e.rec.Prefix}}
	gateways(n, e.rec, res)
	return res, nil
}

// deleteEndpoint forgets an endpoint and puts its device back, waiting for it for as long as patience. The engine ignores
// errors of this call and never repeats it, so that what cannot be done now is left to the reconciler.
func (d *Driver) deleteEndpoint(ctx context.Context, nid, eid string, patience time.Duration) error {
	if err := checkIDs(nid, eid); err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, endpointKey(nid, eid))
	if err != nil {
		return err
	}
	defer unlock()
	e, err := read[endpointRecord](ctx, d.store, endpointKey(nid, eid))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	unlockDevice, err := d.locks.Lock(ctx, loanKey(e.rec.Device))
	if err != nil {
		return err
	}
	defer unlockDevice()
	l, err := d.loan(ctx, e.rec.Device)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && l.Endpoint != eid:
		_, err = transact(ctx, d.store, nil, []write{remove(e.kv.Key)})
		return err
	case err != nil:
		return err
	case l.State == freeing || l.State == quarantined: // the reconciler was quicker
		return nil
	}
	if err := d.advance(ctx, l, freeing, remove(e.kv.Key)); err != nil {
		return err
	}
	d.bringHome(ctx, l, patience)
	if l.Bond != nil {
		d.freeParts(ctx, l.Device)
	}
	return nil
}
