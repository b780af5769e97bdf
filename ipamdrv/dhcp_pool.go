package ipamdrv

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// DHCP leases addresses of the DHCP servers of the host's segments, see [dhcp.Client].
type DHCP interface {
	HostID(device string) (string, error)
	Discover(ctx context.Context, s dhcp.Segment, who dhcp.Identity) (dhcp.Offer, error)
	Acquire(ctx context.Context, s dhcp.Segment, who dhcp.Identity, want netip.Addr) (netip.Addr, dhcp.Lease, error)
	Renew(ctx context.Context, s dhcp.Segment, a netip.Addr, l dhcp.Lease, anyServer bool) (dhcp.Lease, error)
	Release(ctx context.Context, s dhcp.Segment, a netip.Addr, l dhcp.Lease) error
	Decline(ctx context.Context, s dhcp.Segment, a netip.Addr, l dhcp.Lease) error
}

// complete completes a request for a pool whose addresses a DHCP server leases: with the gateway that the server offers, unless the user
// gave another. The subnet must be the server's. The pool's record has the gateway as its option, so that the network has it also if the
// server cannot be reached when the engine asks for it.
func (s *dhcpLeases) complete(ctx context.Context, q *poolRequest) error {
	if !q.config.DHCP || q.v6 && q.config.SLAAC {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return pool.Refuse(ErrInvalid, "ipam option dhcp: "+format, args...)
	}
	switch {
	case q.v6:
		return refuse("is for IPv4; with slaac=yes and --subnet %s the IPv6 addresses come from routers", linkLocal)
	case s.servers == nil || s.pools.node != nil:
		return refuse("needs STORE=bolt: the DHCP server is what nodes share")
	case q.rec.Range.IsValid():
		return refuse("not together with --ip-range: the DHCP server chooses the addresses")
	}
	offer, err := s.servers.Discover(ctx, dhcp.Segment{Device: q.config.Device, Subnet: q.rec.Subnet}, dhcp.Identity{ID: rand.Text()})
	if err != nil {
		return fmt.Errorf("ipam option dhcp: %w", err)
	}
	// An engine that named no subnet asks again and again until it gets one that the host is not on (libnetwork, requestPoolHelper).
	if subnet := offer.Addr.Masked(); q.rec.Subnet != subnet {
		return refuse("server %s on %s has addresses of %s; create the network with --subnet=%s", offer.Server, q.config.Device, subnet, subnet)
	}
	if err := q.setGateway(offer.Router); err != nil {
		return err
	}
	s.log.Info("subnet of the DHCP server", zap.Stringer("pool", q.rec.Subnet), zap.Stringer("server", offer.Server),
		zap.String("gateway", q.rec.Options["gateway"]), zap.String("device", q.config.Device))
	return q.check()
}

// segmentOf returns the segment on which the addresses of p are leased.
func segmentOf(p *pool.Pool) dhcp.Segment {
	return dhcp.Segment{Device: p.Config().Device, Subnet: p.Subnet().Prefix}
}

// fromDHCP leases an address of a pool from its DHCP server. A lease that is not recorded after that expires by itself. A container that was
// renamed still has the lease of its former name: a new one of that name, to which the server gives the same address, asks as another client.
func (al *allocator) fromDHCP(ctx context.Context, h pool.Handle, seg dhcp.Segment, q addressRequest) (string, error) {
	if al.servers == nil {
		return "", pool.Refuse(ErrInvalid, "option dhcp: not possible here")
	}
	who, err := al.identity(q.lease, seg.Device)
	if err != nil {
		return "", err
	}
	got, err := al.acquire(ctx, h, seg, who, q)
	if errors.Is(err, errRenamed) {
		got, err = al.acquire(ctx, h, seg, dhcp.Identity{ID: anonymous(q.lease), Host: who.Host}, q)
	}
	return got, err
}

// errRenamed: another container has the lease of this client.
var errRenamed = errors.New("another container of this host has the lease")

// acquire leases an address as a client, and records it. A lease that it cannot record it releases.
func (al *allocator) acquire(ctx context.Context, h pool.Handle, seg dhcp.Segment, who dhcp.Identity, q addressRequest) (string, error) {
	leases := al.pools.leases
	unlock, err := leases.clients.Lock(ctx, cmp.Or(who.ID, who.MAC))
	if err != nil {
		return "", fmt.Errorf("waiting for an earlier request: %w", err)
	}
	defer unlock()
	a, l, err := al.servers.Acquire(ctx, seg, who, q.addr)
	if err != nil {
		return "", err
	}
	if !seg.Subnet.Contains(a) {
		leases.tellReleased(ctx, seg, a, l)
		return "", pool.Refuse(ErrInvalid, "DHCP server %s on %s leases %s, which is not in the subnet; create the network again", l.Server, seg.Device, a)
	}
	had, ok, err := al.pools.ledger.LeaseOf(ctx, h.ID, a)
	if err == nil && ok && isOf(had, l) {
		return "", errRenamed // the lease stays
	}
	var got string
	if err == nil {
		q.addr, q.lease.DHCP = a, &l
		got, err = al.record(ctx, h, q)
	}
	switch {
	case errors.Is(err, ErrInUse): // by what the server does not know, such as a gateway
		err = errors.Join(err, al.servers.Decline(ctx, seg, a, l))
	case err != nil:
		leases.tellReleased(ctx, seg, a, l)
	}
	return got, err
}

// record records the lease of an address that a server has given.
func (al *allocator) record(ctx context.Context, h pool.Handle, q addressRequest) (string, error) {
	p, err := al.pools.open(ctx, h)
	if err != nil {
		return "", err
	}
	var got string
	seg := segmentOf(p)
	err = p.UnlockAfter(func() (err error) {
		got, err = al.allocate(ctx, p, q.from(h))
		return err
	})
	if err == nil && q.lease.DHCP != nil {
		al.pools.leases.add(leaseRef{h.ID, q.addr}, seg, q.lease)
	}
	return got, err
}

// identity returns as whom a container asks: by its name and the host, whose device no other host of the segment has, or by its MAC. A
// container of which neither is known has a new identity with each start.
func (al *allocator) identity(lease pool.Lease, device string) (dhcp.Identity, error) {
	var who dhcp.Identity
	if mac, err := net.ParseMAC(lease.MAC); err == nil && len(mac) == 6 {
		who.MAC = mac.String()
	}
	switch {
	case lease.Name != "":
		host, err := al.servers.HostID(device)
		if err != nil {
			return dhcp.Identity{}, err
		}
		who.Host = lease.ContainerName()
		who.ID = who.Host + "@" + host
	case who.MAC == "":
		who.ID = anonymous(lease)
	}
	return who, nil
}

// anonymous returns the identifier of a container that cannot be recognized.
func anonymous(lease pool.Lease) string { return "passthrough-" + lease.Token }
