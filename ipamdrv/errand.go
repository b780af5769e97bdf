package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// errand is something that this node has to do in the shared ledger, and cannot do yet. It is written down before
// anybody relies on it, and done before anything else is done with its pool.
//
// What a request is about to make is the errand of taking it back, until it is known that it was made and the answer is on
// its way: a process that is killed in between leaves nothing behind. The end of a handle is promised likewise, to be finished.
type errand struct {
	V  int  `json:"v"`
	Do deed `json:"do"`
	// Share is the network's share of a shared pool.
	Share string     `json:"share,omitempty"`
	Addr  netip.Addr `json:"addr,omitzero"`
	// Token is that of the lease that it is about; with none it is whatever lease the share has.
	Token string `json:"token,omitempty"`
	// Settle is the token of a transaction whose outcome has to be certain before.
	Settle string `json:"settle,omitempty"`
	// At is when the address was released; with none it does not rest.
	At time.Time `json:"at,omitzero"`
	// Lease is what a lease of the reserve becomes.
	Lease *leaseRecord `json:"lease,omitempty"`

	key     string // in the own ledger, or in the journal
	promise bool   // it is in the journal
}

// deed is what an errand does.
type deed string

const (
	doRelease deed = "release" // end a lease
	doLeave   deed = "leave"   // end a handle
	doGive    deed = "give"    // write down who has an address of the reserve
)

// place gives an errand its place in the own ledger. The caller has n.mu.
func (n *node) place(pool string, e *errand) (store.Op, error) {
	e.V, e.key = recordVersion, fmt.Sprintf("%s%s/%016x", owedPrefix, pool, n.next)
	n.next++
	return put(e.key, e)
}

// loadErrand reads one from the own ledger or the journal, in order.
func (n *node) loadErrand(kv store.KV, promise bool) error {
	e := errand{key: kv.Key, promise: promise}
	pool, number, _ := strings.Cut(strings.TrimPrefix(kv.Key, owedPrefix), "/")
	i, err := strconv.ParseUint(number, 16, 64)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	if err := decode(kv, &e, &e.V); err != nil {
		return err
	}
	n.next = max(n.next, i+1)
	n.owed[pool] = append(n.owed[pool], e)
	return nil
}

// loadPromises reads the journal. What is in there was under way when the process ended, after everything in the ledger.
func (n *node) loadPromises() error {
	entries, err := n.journal.Entries()
	errs := []error{err}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		errs = append(errs, n.loadErrand(store.KV{Key: key, Value: entries[key]}, true))
	}
	return errors.Join(errs...)
}

// owe writes an errand down, a promise into the journal.
func (n *node) owe(ctx context.Context, pool string, e errand) (errand, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.load(ctx); err != nil {
		return e, err
	}
	op, err := n.place(pool, &e)
	switch {
	case err != nil:
	case e.promise:
		err = n.journal.Add(op.Key, op.Value)
	default:
		err = n.write(ctx, op)
	}
	if err == nil {
		n.owed[pool] = append(n.owed[pool], e)
	}
	return e, err
}

// errands are those of a pool, in order.
func (n *node) errands(ctx context.Context, pool string) ([]errand, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.load(ctx)
	return append([]errand(nil), n.owed[pool]...), err
}

// owing are the pools that have errands.
func (n *node) owing(ctx context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.load(ctx)
	return slices.Collect(maps.Keys(n.owed)), err
}

// done strikes an errand out. Handles that were made under it are this node's from then on.
func (n *node) done(ctx context.Context, pool string, e errand, made ...madeHandle) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range made {
		if err := n.adoptLocked(ctx, m); err != nil {
			return err
		}
	}
	var err error
	if e.promise { // last: then the answer is on its way
		err = n.journal.Remove(e.key)
	} else {
		err = n.write(ctx, store.Del(e.key))
	}
	if err == nil {
		n.strike(pool, e)
	}
	return err
}

// strike does so in RAM. The caller has n.mu.
func (n *node) strike(pool string, e errand) {
	var left []errand
	for _, other := range n.owed[pool] {
		if other.key != e.key {
			left = append(left, other)
		}
	}
	if n.owed[pool] = left; len(left) == 0 {
		delete(n.owed, pool)
	}
}

// surely makes a write of which it must be known in the end whether it was made: should that not be told, or this process
// end before it is, back takes it back. When it was made, the handles that it makes are this node's. The caller has the
// turn on p.
func (p *pool) surely(ctx context.Context, back errand, write func(context.Context) (store.Result, error),
	made ...madeHandle) (store.Result, error) {
	if p.node == nil {
		return write(ctx)
	}
	back.Settle, back.promise = newID(), true
	back, err := p.node.owe(ctx, p.id, back)
	if err != nil {
		return store.Result{}, err
	}
	r, err := write(store.WithToken(ctx, back.Settle))
	if errors.Is(err, store.ErrAmbiguous) {
		p.state = nil
		return r, err
	}
	if err != nil || !r.OK {
		made = nil
	}
	if err := p.node.done(ctx, p.id, back, made...); err != nil {
		p.state = nil
		return store.Result{}, err
	}
	return r, err
}

// pay does what this node owes to the pool. The caller has the turn on it.
func (d *Driver) pay(ctx context.Context, p *pool) error {
	if d.node == nil {
		return nil
	}
	all, err := d.node.errands(ctx, p.id)
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := d.run(ctx, p, e); err != nil {
			return fmt.Errorf("what is left to do here from before: %w", err)
		}
		if err := d.node.done(ctx, p.id, e); err != nil {
			return err
		}
		d.log.Info("done later", zap.String("what", string(e.Do)), zap.Stringer("address", e.Addr),
			zap.String("pool", p.id))
	}
	return nil
}

// run makes one errand. What it is about may be gone, or somebody else's, by now.
func (d *Driver) run(ctx context.Context, p *pool, e errand) error {
	if err := store.Fence(ctx, d.ledger.store, e.Settle); err != nil {
		return err
	}
	return again(ctx, func() (err error) {
		switch e.Do {
		case doLeave:
			err = d.runLeave(ctx, p, handle{p.id, e.Share})
		case doGive:
			err = p.fulfil(ctx, e)
			if errors.Is(err, ErrInUse) { // nothing more can be done here, and the pool's other errands must not wait for it
				d.log.Error("an address that was given while the shared ledger was away is somebody else's in it; stop one of the "+
					"two containers", zap.Stringer("address", e.Addr), zap.String("container", e.Lease.Name),
					zap.String("pool", p.id), zap.Error(err))
				err = nil
			}
		case doRelease:
			if err = p.load(ctx); err == nil {
				err = d.runRelease(ctx, p, e)
			}
		default:
			err = fmt.Errorf("record %s: %w: %.40q is nothing that this version can do", e.key, store.ErrNewer, e.Do)
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// runLeave ends a handle.
func (d *Driver) runLeave(ctx context.Context, p *pool, h handle) error {
	_, gone, err := p.leave(ctx, h)
	if gone {
		d.forget(p)
	}
	if err == nil || errors.Is(err, store.ErrNotFound) {
		err = d.node.disown(ctx, h)
	}
	return err
}

// runRelease ends a lease. One that another pool of its group has given is that one's errand.
func (d *Driver) runRelease(ctx context.Context, p *pool, e errand) error {
	s := p.state
	if s.overflow == "" || s.prefix.Contains(e.Addr) {
		_, err := p.release(ctx, e.Addr, e.ending())
		return err
	}
	id, lease, err := d.lentFor(ctx, p.id, s, e.Addr)
	if err != nil || id == "" {
		return err
	}
	_, err = d.node.owe(ctx, id, errand{Do: doRelease, Addr: e.Addr, Token: lease.Token, At: e.At})
	return err
}

// ending is how the lease that a release is about ends.
func (e errand) ending() ending { return ending{share: e.Share, token: e.Token, at: e.At} }
