package ipamdrv

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// unboundPools are the pools that this process was asked for, and that may be those of networks which are being created. The engine requests a
// pool, its gateway and its auxiliary addresses, and then tells the network driver which network has them. A pool of another network driver
// may be meant until a container requests an address: then its network exists. What a former process was asked for is in the ledger alone.
type unboundPools struct {
	mu  sync.Mutex // guards all
	all []*unboundPool
}

type unboundPool struct {
	handle   pool.Handle
	settled  bool // its network exists: it is bound, or a container has had an address of it
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

// remove removes a pool that was released.
func (u *unboundPools) remove(h pool.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = slices.DeleteFunc(u.all, func(p *unboundPool) bool { return p.handle == h })
}

// settle notes that the network of a pool exists. The pool may be one that a former process was asked for.
func (u *unboundPools) settle(h pool.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.settleLocked(h)
}

func (u *unboundPools) settleLocked(h pool.Handle) {
	if p := u.findLocked(h); p != nil {
		p.settled = true
		return
	}
	u.all = append(u.all, &unboundPool{handle: h, settled: true})
}

// findLocked returns a pool, nil if it is not known.
func (u *unboundPools) findLocked(h pool.Handle) *unboundPool {
	if i := slices.IndexFunc(u.all, func(p *unboundPool) bool { return p.handle == h }); i >= 0 {
		return u.all[i]
	}
	return nil
}

// knows returns true for a pool that this process was asked for, or whose network exists.
func (u *unboundPools) knows(h pool.Handle) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.findLocked(h) != nil
}

// leased notes that address a of a pool was leased for a request.
func (u *unboundPools) leased(h pool.Handle, a netip.Addr, q addressRequest, invented bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.findLocked(h)
	switch {
	case q.lease.Kind != pool.Gateway && q.lease.OfContainer():
		u.settleLocked(h)
	case p == nil:
	case q.lease.Kind == pool.Gateway:
		p.gateway, p.invented = a, invented
	case !slices.Contains(p.aux, a):
		p.aux = append(p.aux, a)
	}
}

// released notes that address a of a pool was released.
func (u *unboundPools) released(h pool.Handle, a netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.findLocked(h)
	if p == nil {
		return
	}
	if p.gateway == a {
		p.gateway, p.invented = netip.Addr{}, false
	}
	p.aux = slices.DeleteFunc(p.aux, func(b netip.Addr) bool { return b == a })
}

// take settles the pool that the network has, and returns its handle, if exactly one is possible; possible is their number. others is how many
// are possible that a former process was asked for.
func (u *unboundPools) take(n createdNetwork, others int) (h pool.Handle, possible int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	possible = others
	for _, p := range u.all {
		if !p.settled && p.space == n.space && p.subnet == n.subnet && n.has(p.gateway, p.aux) {
			h = p.handle
			possible++
		}
	}
	if possible == 1 && others == 0 {
		u.settleLocked(h)
		return h, 1
	}
	return pool.Handle{}, possible
}

// inventedGateway returns whether the gateway gw of the last pool with that subnet was invented; known is false if no pool has both.
func (u *unboundPools) inventedGateway(subnet netip.Prefix, gw netip.Addr) (invented, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.all {
		if !p.settled && p.subnet == subnet && p.gateway == gw {
			invented, known = p.invented, true
		}
	}
	return invented, known
}
