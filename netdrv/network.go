package netdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// network reads a network, as a request for one of its devices. The error of a network that the ledger does not have tells the user what to do.
func (d *Driver) network(ctx context.Context, nid string) (*mode.Request, error) {
	r, err := ledger.Get[ledger.Network](ctx, d.store, ledger.NetworkKey(nid))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("network %s: the plugin does not know it (was the plugin removed and installed again?); "+
			"remove the network and create it anew: %w", ledger.ShortID(nid), err)
	}
	if err != nil {
		return nil, err
	}
	c, err := option.Parse(r.Rec.Options)
	if err == nil && len(r.Rec.Devices) == 0 {
		err = errors.New("its record names no device; remove the network and create it anew")
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", ledger.ShortID(nid), err)
	}
	return &mode.Request{Network: r.Rec, Options: c}, nil
}

// createNetwork makes a network, or confirms one that is there: swarm creates its networks again, under the same ID,
// after the engine was restarted.
func (d *Driver) createNetwork(ctx context.Context, r *plugin.CreateNetworkRequest) error {
	if err := checkIDs(r.NetworkID); err != nil {
		return err
	}
	raw, err := option.OfNetwork(r.Options)
	if err != nil {
		return err
	}
	c, err := option.Parse(raw)
	if err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, "networks")
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.removeStale(ctx); err != nil {
		return err
	}
	self, others, err := d.networks(ctx, r.NetworkID)
	if err != nil {
		return err
	}
	if self != nil && maps.Equal(self.Rec.Options, raw) {
		return d.confirm(ctx, self)
	}
	cond, err := d.replaceable(ctx, r.NetworkID, self)
	if err != nil {
		return err
	}
	if c.Replace != "" {
		if others, err = d.replace(ctx, c.Replace, others); err != nil {
			return err
		}
	}
	internal, _ := r.Options[netlabel.Internal].(bool)
	rec := ledger.Network{Version: ledger.Version, ID: r.NetworkID, Options: raw, Internal: internal}
	rec = d.engine.Confirmed(rec)
	rec.Devices, err = d.checked(ctx, c, others)
	if err = orReplace(err); err == nil {
		err = d.setGateways(ctx, &rec, c, r)
	}
	if err == nil {
		// Not written once the engine has given up: it would never delete what it does not know. A NIC that needs longer
		// than a call may take to make its VFs has them when the user tries again, if that is within a minute.
		if err = ctx.Err(); err != nil {
			return err
		}
		_, err = ledger.Commit(ctx, d.store, cond, ledger.Put(ledger.NetworkKey(rec.ID), rec))
	}
	if err != nil { // VFs that were made for it have nobody else
		return errors.Join(err, d.retireDevices(context.WithoutCancel(ctx), rec.Devices))
	}
	return nil
}

// confirm notes that the engine knows a network.
func (d *Driver) confirm(ctx context.Context, n *ledger.Rev[ledger.Network]) error {
	rec := d.engine.Confirmed(n.Rec)
	if rec.Boot == n.Rec.Boot && rec.Process == n.Rec.Process {
		return nil
	}
	_, err := ledger.Commit(ctx, d.store, store.Unchanged(n.KV), ledger.Put(n.KV.Key, rec))
	return err
}

// checked finds the devices of a new network and checks that they go together with the others. Those that are in the way,
// and that nobody may need any more, go.
func (d *Driver) checked(ctx context.Context, c *option.Network, others []ledger.Network) ([]ledger.Device, error) {
	m, err := d.modes.Of(c)
	if err != nil {
		return nil, err
	}
	for {
		devices, err := m.Check(ctx, c, others)
		var met *mode.ConflictError
		if !errors.As(err, &met) || !d.suspect(met.Network, others) {
			return devices, err
		}
		rest, busy := d.replace(ctx, met.Network, others)
		if busy != nil {
			return devices, err
		}
		others = rest
	}
}

// retireDevices removes the VFs that the plugin made on a network's devices, where nobody needs them any more.
func (d *Driver) retireDevices(ctx context.Context, devices []ledger.Device) error {
	var errs []error
	for _, dev := range devices {
		errs = append(errs, d.pool.RemoveUnused(ctx, dev.ID.PCI()))
	}
	return errors.Join(errs...)
}

// networks lists all networks but nid, and nid itself, nil if it is not there yet.
func (d *Driver) networks(ctx context.Context, nid string) (self *ledger.Rev[ledger.Network], others []ledger.Network, _ error) {
	all, err := ledger.List[ledger.Network](ctx, d.store, ledger.NetworkPrefix)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range all {
		if r.Rec.ID == nid {
			self = &r
		} else {
			others = append(others, r.Rec)
		}
	}
	return self, others, nil
}

// replaceable is the condition under which a network's record may be written. One that has endpoints keeps its record:
// what they were made from must not change under them.
func (d *Driver) replaceable(ctx context.Context, nid string, self *ledger.Rev[ledger.Network]) (store.Cond, error) {
	if self == nil {
		return store.Absent(ledger.NetworkKey(nid)), nil
	}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, d.store, ledger.EndpointsOf(nid))
	if err == nil && len(endpoints) > 0 {
		err = fmt.Errorf("network %s: is there already, with other options and %d endpoints", ledger.ShortID(nid), len(endpoints))
	}
	return store.Unchanged(self.KV), err
}

// setGateways decides which gateways containers get. Engines before 28 invent one for every network, and nothing in
// this request tells it from one that the user gave; only the IPAM driver knows, when it is ours.
func (d *Driver) setGateways(ctx context.Context, rec *ledger.Network, c *option.Network, r *plugin.CreateNetworkRequest) error {
	for _, family := range []struct {
		data []*plugin.IPAMData
		to   *string
	}{{r.IPv4Data, &rec.Gateway4}, {r.IPv6Data, &rec.Gateway6}} {
		for _, p := range family.data {
			if p == nil {
				continue
			}
			if p.Pool != "" {
				rec.Pools = append(rec.Pools, p.Pool)
			}
			if p.Gateway == "" || rec.Internal || c.Gateway == option.GatewayNone {
				continue
			}
			gw, err := netip.ParsePrefix(p.Gateway)
			if err != nil {
				return fmt.Errorf("gateway %s: %w", p.Gateway, err)
			}
			invented := d.inventedGateway != nil && d.inventedGateway(ctx, p.Pool, p.Gateway)
			switch {
			case invented && (c.Gateway != option.GatewayAuto || nobodys(gw)):
			case *family.to == "":
				*family.to = gw.Addr().String()
			default:
				rec.Gateways = append(rec.Gateways, gw.Addr().String())
			}
		}
	}
	return nil
}

// nobodys says whether gw is the subnet's own address, which the IPAM driver answers where there is to be no gateway to
// engines that insist on one.
func nobodys(gw netip.Prefix) bool {
	return gw.Addr() == gw.Masked().Addr() && gw.Addr().BitLen()-gw.Bits() > 1
}

// deleteNetwork forgets a network. Endpoints that it still has are ones whose deletion never reached the plugin; their
// devices are freed, now or when they come home: there may be too many to wait for. VFs that the plugin made go with the
// last network of their PF.
func (d *Driver) deleteNetwork(ctx context.Context, nid string) error {
	if err := checkIDs(nid); err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, "networks")
	if err != nil {
		return err
	}
	defer unlock()
	return d.dropNetwork(ctx, nid)
}

// dropNetwork is deleteNetwork for who holds the lock of all networks.
func (d *Driver) dropNetwork(ctx context.Context, nid string) error {
	r, err := ledger.Get[ledger.Network](ctx, d.store, ledger.NetworkKey(nid))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	left, err := ledger.List[ledger.Endpoint](ctx, d.store, ledger.EndpointsOf(nid))
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := d.deleteEndpoint(ctx, e.Rec.Network, e.Rec.ID, 0); err != nil {
			return err
		}
	}
	if err := d.forget(ctx, r); err != nil {
		return err
	}
	return d.retireDevices(context.WithoutCancel(ctx), r.Rec.Devices)
}
