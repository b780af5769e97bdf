package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// plan answers what docker network create would do, as far as it came, and why it would be refused.
func (d *drivers) plan(ctx context.Context, r *admin.PlanRequest) (*admin.Plan, error) {
	p := &admin.Plan{}
	if err := d.planNetwork(ctx, r, p); err != nil {
		p.Refused = errorText(err)
	}
	return p, nil
}

// planNetwork makes the calls of an engine that creates a network, in its order, to drivers that change nothing.
func (d *drivers) planNetwork(ctx context.Context, r *admin.PlanRequest, p *admin.Plan) error {
	options := map[string]any{}
	for key, value := range r.Options {
		options[key] = value
	}
	create := &plugin.CreateNetworkRequest{Options: map[string]any{netlabel.GenericData: options, netlabel.Internal: r.Internal}}
	gw, err := d.network.GwAllocCheck(ctx, &netdrv.GwAllocCheckRequest{Options: create.Options})
	if err != nil {
		return err
	}
	dry, err := d.ipam.DryRun()
	if err != nil {
		return err
	}
	defer dry.Close()
	e := planEngine{ipam: dry, request: r, plan: p}
	if r.IPv4 {
		if create.IPv4Data, err = e.subnets(ctx, false, gw.SkipIPv4); err != nil {
			return err
		}
	}
	if r.IPv6 {
		if create.IPv6Data, err = e.subnets(ctx, true, gw.SkipIPv6); err != nil {
			return err
		}
	}
	of, err := d.network.Plan(ctx, create)
	if err != nil {
		return err
	}
	of.Pools = p.Pools
	*p = *of
	return nil
}

// A planEngine asks an IPAM driver for what a network needs, as an engine does (libnetwork network.go, ipamAllocateVersion).
type planEngine struct {
	ipam    *ipamdrv.Driver
	request *admin.PlanRequest
	plan    *admin.Plan
}

// subnets returns the subnets of a family. Without one the IPAM driver chooses.
func (e planEngine) subnets(ctx context.Context, v6, noGateway bool) (all []*plugin.IPAMData, _ error) {
	of := slices.DeleteFunc(slices.Clone(e.request.Subnets), func(s admin.Subnet) bool {
		p, err := netip.ParsePrefix(s.Subnet)
		return err == nil && p.Addr().Is6() != v6 || err != nil && v6
	})
	if len(of) == 0 {
		of = []admin.Subnet{{}}
	}
	for _, s := range of {
		data := &plugin.IPAMData{Pool: s.Subnet, Gateway: s.Gateway, AuxAddresses: map[string]any{}}
		if e.request.OwnIPAM {
			if err := e.lease(ctx, s, data, v6, noGateway); err != nil {
				return nil, err
			}
		}
		subnet, err := netip.ParsePrefix(data.Pool)
		if err != nil { // of another IPAM driver, which chooses it
			continue
		}
		if a, err := netip.ParseAddr(data.Gateway); err == nil {
			data.Gateway = netip.PrefixFrom(a, subnet.Bits()).String()
		}
		for name, text := range s.Aux {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("aux-address %s: %w", name, err)
			}
			data.AuxAddresses[name] = netip.PrefixFrom(a, subnet.Bits()).String()
		}
		all = append(all, data)
	}
	return all, nil
}

// lease requests the pool of a subnet, its gateway and its auxiliary addresses.
func (e planEngine) lease(ctx context.Context, s admin.Subnet, data *plugin.IPAMData, v6, noGateway bool) error {
	pool, err := e.ipam.RequestPool(ctx, &ipam.RequestPoolRequest{Pool: s.Subnet, SubPool: s.Range, Options: e.request.IPAMOptions, V6: v6})
	if err != nil {
		return err
	}
	data.Pool = pool.Pool
	if data.Gateway, err = requestGateway(ctx, e.ipam, pool, s, noGateway); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		subnet, _ := netip.ParsePrefix(data.Pool)
		if a, err := netip.ParseAddr(s.Aux[name]); err != nil || !subnet.Contains(a) {
			continue
		}
		if _, err := e.ipam.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool.PoolID, Address: s.Aux[name]}); err != nil {
			return err
		}
	}
	shown, err := e.ipam.Pool(ctx, pool.PoolID)
	if err == nil {
		e.plan.Pools = append(e.plan.Pools, *shown)
	}
	return err
}

// requestGateway requests the gateway of a pool, and returns it with a prefix length; "" for none.
func requestGateway(ctx context.Context, d *ipamdrv.Driver, pool *ipam.RequestPoolResponse, s admin.Subnet, noGateway bool) (string, error) {
	given := pool.Data[netlabel.Gateway]
	if s.Gateway == "" && (given != "" || noGateway) {
		return given, nil
	}
	a, err := d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool.PoolID, Address: s.Gateway,
		Options: map[string]string{"RequestAddressType": netlabel.Gateway}})
	if err != nil {
		return "", err
	}
	return a.Address, nil
}

// ownersAddresses is the IPAM driver for owners of devices that are no engine: it makes the calls that an engine makes itself.
type ownersAddresses struct{ ipam *ipamdrv.Driver }

// RequestPool implements [netdrv.Addresses].
func (o ownersAddresses) RequestPool(ctx context.Context, network string, s admin.Subnet, options map[string]string) (string, *plugin.IPAMData, error) {
	pool, err := o.ipam.Owners().RequestPool(ctx, network, &ipam.RequestPoolRequest{Pool: s.Subnet, SubPool: s.Range, Options: options})
	if err != nil {
		return "", nil, err
	}
	gateway, err := requestGateway(ctx, o.ipam, pool, s, true)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPoolTimeout)
		defer cancel()
		return "", nil, errors.Join(err, o.ReleasePool(ctx, pool.PoolID))
	}
	return pool.PoolID, &plugin.IPAMData{Pool: pool.Pool, Gateway: gateway}, nil
}

// undoPoolTimeout bounds the release of a pool whose gateway cannot be had.
const undoPoolTimeout = 5 * time.Second

// ReleasePool implements [netdrv.Addresses].
func (o ownersAddresses) ReleasePool(ctx context.Context, id string) error {
	_, err := o.ipam.ReleasePool(ctx, &ipam.ReleasePoolRequest{PoolID: id})
	return err
}

// Lease implements [netdrv.Addresses].
func (o ownersAddresses) Lease(ctx context.Context, pool, address, container, mac string) (string, ledger.Lease, error) {
	got, token, err := o.ipam.Owners().RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool, Address: address,
		Options: map[string]string{netlabel.Prefix + ".endpoint.name": container, netlabel.MacAddress: mac}})
	if err != nil {
		return "", ledger.Lease{}, err
	}
	p, err := netip.ParsePrefix(got)
	return got, ledger.Lease{Pool: pool, Addr: p.Addr(), Token: token}, err
}

// Release implements [netdrv.Addresses].
func (o ownersAddresses) Release(ctx context.Context, l ledger.Lease) error {
	return o.ipam.Owners().ReleaseAddress(ctx, &ipam.ReleaseAddressRequest{PoolID: l.Pool, Address: l.Addr.String()}, l.Token)
}
