package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// pool is one pool in RAM. Requests to it take turns; those to other pools do not wait for it.
type pool struct {
	id     string
	ledger ledger
	turn   // of requests to it

	// state is nil until the pool's first use and whenever it may differ from the ledger; see load.
	state *state

	// node is set when drivers on other nodes have the pool as well. Then each keeps for itself which address it chose last,
	// in last: they would fail each other with every address if all wrote it down, and meet at every address if all began
	// at the same.
	node *node
	last netip.Addr
}

// state is the copy of what the ledger says of a pool.
type state struct {
	subnet
	config
	rec   poolRecord
	rev   int64 // of rec in the ledger
	used  *set  // the numbers of the addresses that are leased or rest
	rests rests // what was leased and rests

	shares map[string]share // the networks that share the pool; none when it is not shared
}

// share is what a pool's state has of the record of a network that shares it.
type share struct {
	node, network string
	strange       bool // it cannot be read
}

// newPool is a pool that has not been looked up yet.
func newPool(id string, l ledger) *pool {
	return &pool{id: id, ledger: l, turn: newTurn(), node: l.node}
}

// finish does the last thing in the caller's turn and ends that, also when there is a panic, which the server survives. What is
// in RAM may not be what is in the ledger then.
func (p *pool) finish(last func() error) error {
	sure := false
	defer func() {
		if !sure {
			p.state = nil
		}
		p.unlock()
	}()
	err := last()
	sure = true
	return err
}

// load makes state from the ledger when there is none. The error matches [store.ErrNotFound] when the pool does not
// exist. The caller has the turn, as in all methods below.
func (p *pool) load(ctx context.Context) error {
	if p.state != nil {
		return nil
	}
	kv, err := p.ledger.store.Get(ctx, poolKey(p.id))
	if err != nil {
		return err
	}
	rec, err := decodePool(kv)
	if err != nil {
		return err
	}
	c, err := parseOptions(rec.Options)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	s := &state{subnet: newSubnet(rec.Subnet, rec.Range, c.exclude), config: c, rec: rec, rev: kv.Rev, used: newSet()}
	err = p.ledger.leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		if !s.prefix.Contains(a) {
			return fmt.Errorf("record %s: %w: not in subnet %s", kv.Key, store.ErrCorrupt, s.prefix)
		}
		s.mark(a, (*set).add)
		if l, err := decodeLease(kv); err == nil && l.Kind == kindResting {
			s.rests.add(a, l, kv.Rev)
		}
		return nil // a lease that cannot be read is somebody's
	})
	if err != nil {
		return err
	}
	s.rests.sort()
	if p.node != nil {
		if !p.last.IsValid() && s.hi > s.lo { // somewhere, where no other node is likely to begin
			p.last = s.addr(s.lo + rand.Uint64N(s.hi-s.lo))
		}
		s.rec.Cursor = p.last
	}
	s.shares, err = p.sharesOf(ctx)
	if err == nil {
		p.state = s
	}
	return err
}

// sharesOf lists the networks that share the pool.
func (p *pool) sharesOf(ctx context.Context) (map[string]share, error) {
	prefix, shares := sharePrefix+p.id+"/", map[string]share{}
	err := p.ledger.store.Range(ctx, prefix, func(kv store.KV) error {
		var rec shareRecord
		s := share{strange: true}
		if decode(kv, &rec, &rec.V) == nil {
			s = share{node: rec.Node, network: rec.Network}
		}
		shares[strings.TrimPrefix(kv.Key, prefix)] = s
		return nil
	})
	return shares, err
}

// knows says whether h is a handle of the pool.
func (p *pool) knows(h handle) bool {
	if len(p.state.shares) == 0 {
		return h.share == ""
	}
	_, ok := p.state.shares[h.share]
	return ok
}

// bound says whether the network is made, and known, that has this share, or the pool if it is not shared. Who asks for an
// address from then on is a container: engines ask for what --aux-address names before they make the network.
func (s *state) bound(share string) bool {
	if share == "" {
		return s.rec.Network != ""
	}
	return s.shares[share].network != ""
}

// mark changes a's place in the index, if it has one.
func (s *state) mark(a netip.Addr, change func(*set, uint64) bool) {
	if n, ok := s.number(a); ok {
		change(s.used, n)
	}
}

// write commits ops under conds and under the condition that the pool is as we know it. next, when not nil, becomes the
// pool's record in the same transaction. The result's OK is false only when a condition on a lease failed.
func (p *pool) write(ctx context.Context, conds []store.Cond, next *poolRecord, ops ...store.Op) (store.Result, error) {
	s := p.state
	conds = append([]store.Cond{{Key: poolKey(p.id), Rev: s.rev}}, conds...) // first: who is not up to date judges nothing
	if next != nil {
		op, err := put(poolKey(p.id), next)
		if err != nil {
			return store.Result{}, err
		}
		ops = append(ops, op)
	}
	r, err := p.ledger.commit(ctx, conds, ops...)
	switch {
	case errors.Is(err, store.ErrAmbiguous):
		p.state = nil
		return r, err
	case err != nil:
		return r, err
	case !r.OK && r.Failed.Key == poolKey(p.id):
		p.state = nil
		return r, errChanged
	case !r.OK:
		return r, nil
	}
	if next != nil {
		s.rec, s.rev = *next, r.Rev
	}
	if r.Rev == 0 {
		p.state = nil // applied, but the new revision is not known
	}
	return r, nil
}

// give leases address a, which the caller has chosen or was asked for, and which may rest. next is as in write. The records of
// over, which have rested long enough, go with the same transaction if they are as this node knows them: another one may have
// given such an address since.
func (p *pool) give(ctx context.Context, a netip.Addr, lease leaseRecord, next *poolRecord, over ...netip.Addr) error {
	s := p.state
	if err := p.givable(a); err != nil {
		return err
	}
	op, err := put(leaseKey(p.id, a), lease)
	if err != nil {
		return err
	}
	conds, ops := []store.Cond{{Key: op.Key, Rev: s.rests.rev(a)}}, []store.Op{op}
	for _, b := range over {
		conds = append(conds, store.Cond{Key: leaseKey(p.id, b), Rev: s.rests.rev(b)})
		ops = append(ops, store.Del(leaseKey(p.id, b)))
	}
	back := errand{Do: doRelease, Addr: a, Token: lease.Token}
	r, err := p.surely(ctx, back, func(ctx context.Context) (store.Result, error) {
		return p.write(ctx, conds, next, ops...)
	})
	switch {
	case err != nil:
		return err
	case !r.OK && r.Failed.Key == op.Key:
		return p.inUse(ctx, a)
	case !r.OK:
		s.lose(over)
		return p.give(ctx, a, lease, next)
	}
	for _, b := range append(over, a) {
		s.rests.remove(b)
	}
	s.mark(a, (*set).add)
	return nil
}

// lose forgets what was known of these addresses, of which another node has changed one. They count as taken until the pool is
// loaded anew; to load it now would cost every node a reading of the whole pool with every choice, where many rest.
func (s *state) lose(some []netip.Addr) {
	for _, a := range some {
		s.rests.remove(a)
		s.mark(a, (*set).add)
	}
}

// givable refuses an address that the pool cannot give.
func (p *pool) givable(a netip.Addr) error {
	s := p.state
	switch what := s.reserved(a); {
	case a.Is4() != s.prefix.Addr().Is4():
		return refuse(ErrInvalid, "the pool is %s", s.family())
	case !s.prefix.Contains(a):
		return refuse(ErrInvalid, "not in the subnet")
	case what != "":
		return refuse(ErrInvalid, "it is %s", what)
	}
	return nil
}

// inUse is the error for an address that somebody has.
func (p *pool) inUse(ctx context.Context, a netip.Addr) error {
	kv, err := p.ledger.store.Get(ctx, leaseKey(p.id, a))
	if errors.Is(err, store.ErrNotFound) { // free since we looked
		p.state = nil
		return errChanged
	}
	if err != nil {
		return err
	}
	lease, err := decodeLease(kv)
	if err != nil {
		return refuse(ErrInUse, "in use (%v)", err)
	}
	if lease.Kind == kindResting { // since we looked
		p.state = nil
		return errChanged
	}
	return refuse(ErrInUse, "in use %s", lease.holder(a))
}

// giveAsked leases the address that somebody asked for. One that a container asks for is probed; what --aux-address names is
// somebody's, and does not say whose.
func (p *pool) giveAsked(ctx context.Context, a netip.Addr, lease leaseRecord, ask prober) error {
	if err := p.givable(a); err != nil {
		return err
	}
	if len(lease.owners()) > 0 {
		mac, err := ask.holder(ctx, a)
		if err != nil {
			return err
		}
		if mac != "" {
			return refuse(ErrInUse, "%s has it, says option probe (%s)", mac, ask.device)
		}
	}
	return p.give(ctx, a, lease, nil)
}
