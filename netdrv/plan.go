package netdrv

import (
	"context"
	"fmt"
	"strings"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/cdi"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// Plan returns what CreateNetwork would do with a request, and refuses what that would refuse, by the same checks. It changes nothing. The
// request needs no ID; its gateways are those that the user or the user's options named.
func (d *Driver) Plan(ctx context.Context, r *plugin.CreateNetworkRequest) (*admin.Plan, error) {
	raw, err := option.OfNetwork(r.Options)
	if err != nil {
		return nil, err
	}
	o, err := option.Parse(raw)
	if err == nil {
		err = option.CheckFamilies(raw, len(r.IPv4Data) > 0, len(r.IPv6Data) > 0)
	}
	if err != nil {
		return nil, err
	}
	unlock, err := d.networks.locks.Lock(ctx, networksLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	internal, _ := r.Options[netlabel.Internal].(bool)
	draft := &draft{rec: ledger.Network{Version: ledger.Version, Options: raw, Internal: internal}, o: o}
	removed, err := d.networks.planLocked(ctx, draft, r)
	if err != nil {
		return nil, err
	}
	return draft.show(removed), nil
}

// planLocked completes a draft, and returns the networks that would be removed for it. The caller holds the lock of all networks.
func (x *networks) planLocked(ctx context.Context, d *draft, r *plugin.CreateNetworkRequest) (removed []string, _ error) {
	if err := x.endpoints.awaitReleases(ctx, ""); err != nil {
		return nil, err
	}
	_, all, err := listNetworks(ctx, x.store, "")
	if err != nil {
		return nil, err
	}
	var others []ledger.Network
	for _, n := range all {
		if x.engine.Staleness(n) == engineview.Stale {
			removed = append(removed, n.ID)
		} else {
			others = append(others, n)
		}
	}
	without := func(id string, others []ledger.Network, said bool) ([]ledger.Network, error) {
		rest, nid := leaveOut(others, id)
		if nid == "" {
			return others, nil
		}
		if _, err := x.forgotten(ctx, nid, said); err != nil {
			return nil, err
		}
		removed = append(removed, nid)
		return rest, nil
	}
	if d.o.Replace != "" {
		if others, err = without(d.o.Replace, others, true); err != nil {
			return nil, err
		}
	}
	dry := *x
	dry.inventedGateway = nil // the request has no gateway that an engine invented
	err = dry.draw(ctx, d, others, r, func(id string, others []ledger.Network) ([]ledger.Network, error) { return without(id, others, false) })
	if err == nil && len(removed) == 0 { // one that is removed may have the addresses
		if err = x.hosts.CheckAddrs(d.rec.HostAddrs, ""); err != nil {
			err = fmt.Errorf("host access: %w", err)
		}
	}
	return removed, err
}

// show returns a draft as operators see it.
func (d *draft) show(removed []string) *admin.Plan {
	p := &admin.Plan{Mode: d.o.Mode, Steps: d.plan.Steps, Untried: d.plan.Untried}
	for _, dev := range d.rec.Devices {
		p.Devices = append(p.Devices, dev.Name)
	}
	for _, nid := range removed {
		p.Steps = append(p.Steps, fmt.Sprintf("network %s is removed from the plugin's records: the engine has forgotten it", ledger.ShortID(nid)))
	}
	if step := cdi.Step(d.o); step != "" {
		p.Steps = append(p.Steps, step)
	}
	if len(d.rec.HostAddrs) > 0 {
		addrs := fmt.Sprint(d.rec.HostAddrs)
		p.Steps = append(p.Steps, fmt.Sprintf("the host gets a device on %s with the addresses %s", d.rec.HostParent().Name, strings.Trim(addrs, "[]")))
	}
	for _, gw := range append([]string{d.rec.Gateway4, d.rec.Gateway6}, d.rec.Gateways...) {
		if gw != "" {
			p.Gateways = append(p.Gateways, gw)
		}
	}
	return p
}
