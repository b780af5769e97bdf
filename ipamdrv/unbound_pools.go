package ipamdrv

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// unboundPools are the pools that this process was asked for, and that may be those of networks which are being created. The engine requests a
// pool, its gateway and its auxiliary addresses, and then tells the network driver which network has them. A pool of another network driver
// stays until a container requests an address: then its network exists.
type unboundPools struct {
	mu  sync.Mutex // guards all
	all []*unboundPool
}

type unboundPool struct {
	handle   pool.Handle
	space    string
	subnet   netip.Prefix
	gateway  netip.Addr // not valid: none was requested, nor answered with the pool
	invented bool       // the gateway was requested, but not by its address
	aux      []netip.Addr
}

// add adds a pool that was requested. gateway is the one that was answered with it; not valid for none.
func (u *unboundPools) add(h pool.Handle, space string, subnet netip.Prefix, gateway netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = append(u.all, &unboundPool{handle: h, space: space, subnet: subnet, gateway: gateway})
}

// remove removes a pool: it is bound, or was released.
func (u *unboundPools) remove(h pool.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removeLocked(h)
}

func (u *unboundPools) removeLocked(h pool.Handle) {
	u.all = slices.DeleteFunc(u.all, func(p *unboundPool) bool { return p.handle == h })
}

// leased notes that address a of a pool was leased for a request.
func (u *unboundPools) leased(h pool.Handle, a netip.Addr, q addressRequest, invented bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.all {
		switch {
		case p.handle != h:
		case q.lease.Kind == pool.Gateway:
			p.gateway, p.invented = a, invented
		case q.lease.OfContainer():
			u.removeLocked(h)
			return
		case !slices.Contains(p.aux, a):
			p.aux = append(p.aux, a)
		}
	}
}

// released notes that address a of a pool was released.
func (u *unboundPools) released(h pool.Handle, a netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.all {
		if p.handle != h {
			continue
		}
		if p.gateway == a {
			p.gateway, p.invented = netip.Addr{}, false
		}
		p.aux = slices.DeleteFunc(p.aux, func(b netip.Addr) bool { return b == a })
	}
}

// take removes the pool that the network has, and returns its handle, if exactly one is possible; possible is their number.
func (u *unboundPools) take(n createdNetwork) (h pool.Handle, possible int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.all {
		if p.isOf(n) {
			h = p.handle
			possible++
		}
	}
	if possible == 1 {
		u.removeLocked(h)
	}
	return h, possible
}

// isOf returns true if the pool can be the one of a network.
func (p *unboundPool) isOf(n createdNetwork) bool {
	sorted := func(some []netip.Addr) []netip.Addr {
		return slices.Compact(slices.SortedFunc(slices.Values(some), netip.Addr.Compare))
	}
	return p.space == n.space && p.subnet == n.subnet && p.gateway == n.gateway && slices.Equal(sorted(p.aux), sorted(n.aux))
}

// inventedGateway returns whether the gateway gw of the last pool with that subnet was invented; known is false if no pool has both.
func (u *unboundPools) inventedGateway(subnet netip.Prefix, gw netip.Addr) (invented, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.all {
		if p.subnet == subnet && p.gateway == gw {
			invented, known = p.invented, true
		}
	}
	return invented, known
}
