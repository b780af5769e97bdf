package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// node is this node among those that share the ledger, with what it keeps in its own, which is always at hand:
//
//	node/owed/POOL/NUMBER         errand: what is to be done in the shared ledger as soon as that can be reached; in the
//	                              journal those of calls that are being answered
//	node/mine/HANDLE              mineRecord: a handle that this node's engine has
//	node/reserve/HANDLE/ADDRESS   leaseRecord: an address that this node has for nobody yet
//
// A ledger that nobody shares has no node.
type node struct {
	own     store.Store
	journal Journal
	member  *cluster.Member

	mu      sync.Mutex // guards the fields below, and is held while the own ledger, which answers at once, is written
	loaded  bool
	owed    map[string][]errand                   // by pool, in order
	next    uint64                                // number of the next errand
	mine    map[string]mineRecord                 // by handle
	reserve map[string]map[netip.Addr]leaseRecord // by handle
	whole   map[string]bool                       // handles whose reserve was compared with the ledger
	away    time.Time                             // until when the shared ledger is not worth a try
	lost    error                                 // why
}

// Journal keeps entries that have to survive the end of the process, but not that of the machine, see [journal.Journal].
type Journal interface {
	Add(key string, value []byte) error
	Remove(key string) error
	Entries() (map[string][]byte, error)
}

// Where the node's own records lie.
const (
	owedPrefix    = "node/owed/"
	minePrefix    = "node/mine/"
	reservePrefix = "node/reserve/"
)

// mineRecord is what the node knows of a handle without the shared ledger.
type mineRecord struct {
	V       int          `json:"v"`
	Subnet  netip.Prefix `json:"subnet"`
	Reserve int          `json:"reserve,omitempty"` // how many addresses it is to have ahead
}

// made is a handle of a pool with this subnet and these options.
func made(h handle, subnet netip.Prefix, c config) madeHandle {
	return madeHandle{h, mineRecord{V: recordVersion, Subnet: subnet, Reserve: c.prefetch}}
}

// newNode is a node whose own ledger has not been read yet.
func newNode(c Config) *node {
	if c.Own == nil {
		return nil
	}
	return &node{own: c.Own, journal: c.Journal, member: cluster.New(c.Own, c.Store, c.NodeName)}
}

// load reads the own ledger, once. The caller has n.mu.
func (n *node) load(ctx context.Context) error {
	if n.loaded {
		return nil
	}
	n.clear()
	err := errors.Join(
		n.own.Range(ctx, owedPrefix, func(kv store.KV) error { return n.loadErrand(kv, false) }),
		n.own.Range(ctx, minePrefix, func(kv store.KV) error {
			var rec mineRecord
			err := decode(kv, &rec, &rec.V)
			n.mine[strings.TrimPrefix(kv.Key, minePrefix)] = rec
			return err
		}),
		n.own.Range(ctx, reservePrefix, n.loadReserve))
	if err == nil { // who has the ledger open has the journal, too
		err = n.loadPromises()
	}
	n.loaded = err == nil
	return err
}

// clear forgets what was read.
func (n *node) clear() {
	n.owed, n.mine = map[string][]errand{}, map[string]mineRecord{}
	n.reserve, n.whole = map[string]map[netip.Addr]leaseRecord{}, map[string]bool{}
}

// write writes to the own ledger, whoever has stopped waiting for it: what is not written down is lost. The caller has n.mu.
func (n *node) write(ctx context.Context, ops ...store.Op) error {
	_, err := n.own.Txn(context.WithoutCancel(ctx), nil, ops)
	if err != nil {
		return fmt.Errorf("this node's own ledger: %w", err)
	}
	return nil
}

// cannot says whether err means that the shared ledger could not be used, or not in time.
func (n *node) cannot(err error) bool {
	return n != nil && (errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}

// awayTime is how long the shared ledger is not tried again by calls that can do without it.
const awayTime = 2 * time.Second

// noteAway remembers that the shared ledger could not be used.
func (n *node) noteAway(err error) {
	if !n.cannot(err) || errors.Is(err, context.Canceled) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away, n.lost = time.Now().Add(awayTime), err
}

// isAway is why the shared ledger is not worth a try at the moment, nil when it is.
func (n *node) isAway() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.away) {
		return n.lost
	}
	return nil
}

// has says whether this node's engine has a handle of the pool. A ledger that nobody shares has no others.
func (n *node) has(ctx context.Context, id string) (bool, error) {
	if n == nil {
		return true, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.load(ctx)
	for text := range n.mine {
		if h, ok := parseHandle(text); ok && h.id == id {
			return true, nil
		}
	}
	return false, err
}

// mineOnly tells which handles this node's engine has; in a ledger that nobody shares all.
func (n *node) mineOnly(ctx context.Context) (func(handle) bool, error) {
	if n == nil {
		return func(handle) bool { return true }, nil
	}
	all, err := n.handles(ctx)
	return func(h handle) bool { return slices.Contains(all, h) }, err
}

// handles are those that this node's engine has, in order.
func (n *node) handles(ctx context.Context) ([]handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.load(ctx)
	var all []handle
	for _, text := range slices.Sorted(maps.Keys(n.mine)) {
		if h, ok := parseHandle(text); ok {
			all = append(all, h)
		}
	}
	return all, err
}

// id is the node's name among nodes, "" where there are no others.
func (n *node) id(ctx context.Context) (string, error) {
	if n == nil {
		return "", nil
	}
	return n.member.ID(ctx)
}

// madeHandle is a handle and what the node knows of it.
type madeHandle struct {
	handle
	rec mineRecord
}

// adopt writes a handle down that this node's engine has.
func (n *node) adopt(ctx context.Context, m madeHandle) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.load(ctx); err != nil {
		return err
	}
	return n.adoptLocked(ctx, m)
}

// adoptLocked is adopt for who has n.mu.
func (n *node) adoptLocked(ctx context.Context, m madeHandle) error {
	if n.mine[m.String()] == m.rec {
		return nil
	}
	op, err := put(minePrefix+m.String(), m.rec)
	if err == nil {
		err = n.write(ctx, op)
	}
	if err == nil {
		n.mine[m.String()] = m.rec
	}
	return err
}

// disown drops a handle and its reserve; more is written with it.
func (n *node) disown(ctx context.Context, h handle, more ...errand) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.load(ctx); err != nil {
		return err
	}
	ops := []store.Op{store.Del(minePrefix + h.String())}
	for a := range n.reserve[h.String()] {
		ops = append(ops, store.Del(reserveKey(h, a)))
	}
	for i := range more {
		op, err := n.place(h.id, &more[i])
		if err != nil {
			return err
		}
		ops = append(ops, op)
	}
	if err := n.write(ctx, ops...); err != nil {
		return err
	}
	delete(n.mine, h.String())
	delete(n.reserve, h.String())
	n.owed[h.id] = append(n.owed[h.id], more...)
	return nil
}

// restart drops everything that the node had under an identity that was declared lost, and takes on a new one, unless another
// request has done so already.
func (n *node) restart(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.member.Cond(ctx); !errors.Is(err, cluster.ErrRemoved) {
		return err
	}
	var ops []store.Op
	for _, prefix := range []string{owedPrefix, minePrefix, reservePrefix} {
		err := n.own.Range(ctx, prefix, func(kv store.KV) error {
			ops = append(ops, store.Del(kv.Key))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(ops) > 0 {
		if err := n.write(ctx, ops...); err != nil {
			return err
		}
	}
	n.clear()
	promises, err := n.journal.Entries()
	for key := range promises {
		err = errors.Join(err, n.journal.Remove(key))
	}
	if err != nil {
		return err
	}
	return n.member.Renew(ctx)
}
