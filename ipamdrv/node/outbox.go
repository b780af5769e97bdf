package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// The outbox has what this node has to do in the shared store and cannot do yet. An op is durable before an answer relies on it, and is done
// before anything else is done with its pool.
//
// An intent is an op in the journal: the undo of what a request is about to make, until the outcome is known and the answer is on its way. A
// process that is killed in between leaves nothing behind. The release of a handle is an intent likewise, to be finished.

// op is an entry of the outbox.
type op struct {
	pool.Op
	key    string // in the own ledger or in the journal
	intent bool   // it is in the journal
}

// An Entry is an op of the outbox, for its execution.
type Entry struct {
	pool.Op
	op op
}

// Key returns the key of the entry's record, for errors.
func (e Entry) Key() string { return e.op.key }

// placeLocked gives an op its number and key, and returns the write of its record.
func (n *Node) placeLocked(poolID string, o pool.Op) (op, store.Op, error) {
	o.V = pool.RecordVersion
	e := op{Op: o, key: fmt.Sprintf("%s%s/%016x", opPrefix, poolID, n.nextOp)}
	n.nextOp++
	write, err := record.Put(e.key, e.Op)
	return e, write, err
}

// loadOpLocked reads an op from the own ledger or the journal, in order.
func (n *Node) loadOpLocked(kv store.KV, intent bool) error {
	e := op{key: kv.Key, intent: intent}
	poolID, number, _ := strings.Cut(strings.TrimPrefix(kv.Key, opPrefix), "/")
	i, err := strconv.ParseUint(number, 16, 64)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	if e.Op, err = record.Decode[pool.Op](kv, pool.Versions); err != nil {
		return err
	}
	if e.Lease != nil {
		e.Lease.Extra = e.Of("lease")
	}
	n.nextOp = max(n.nextOp, i+1)
	n.ops[poolID] = append(n.ops[poolID], e)
	return nil
}

// loadIntentsLocked reads the journal. Its entries were in flight when the process ended, after all ops of the ledger.
func (n *Node) loadIntentsLocked() error {
	entries, err := n.journal.Entries()
	errs := []error{err}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		errs = append(errs, n.loadOpLocked(store.KV{Key: key, Value: entries[key]}, true))
	}
	return errors.Join(errs...)
}

// Enqueue writes an op down.
func (n *Node) Enqueue(ctx context.Context, poolID string, o pool.Op) error {
	_, err := n.enqueue(ctx, poolID, o, false)
	return err
}

// BeginIntent writes an op down as an intent. [Node.Dequeue] ends it.
func (n *Node) BeginIntent(ctx context.Context, poolID string, o pool.Op) (Entry, error) {
	return n.enqueue(ctx, poolID, o, true)
}

func (n *Node) enqueue(ctx context.Context, poolID string, o pool.Op, intent bool) (Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return Entry{}, err
	}
	e, write, err := n.placeLocked(poolID, o)
	e.intent = intent
	switch {
	case err != nil:
	case intent:
		err = n.journal.Add(write.Key, write.Value)
	default:
		err = n.writeLocked(ctx, write)
	}
	if err == nil {
		n.ops[poolID] = append(n.ops[poolID], e)
	}
	return Entry{e.Op, e}, err
}

// Entries returns the ops of a pool, in order.
func (n *Node) Entries(ctx context.Context, poolID string) ([]Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	var all []Entry
	for _, e := range n.ops[poolID] {
		all = append(all, Entry{e.Op, e})
	}
	return all, err
}

// Pools returns the pools that have ops.
func (n *Node) Pools(ctx context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	return slices.Collect(maps.Keys(n.ops)), err
}

// Dequeue removes an op that is done. Handles that were created under it are this node's from then on.
func (n *Node) Dequeue(ctx context.Context, poolID string, e Entry, created ...pool.LocalHandle) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range created {
		if err := n.claimLocked(ctx, h); err != nil {
			return err
		}
	}
	var err error
	if e.op.intent { // last: the answer is on its way then
		err = n.journal.Remove(e.op.key)
	} else {
		err = n.writeLocked(ctx, store.Del(e.op.key))
	}
	if err == nil {
		n.removeLocked(poolID, e.op)
	}
	return err
}

// removeLocked removes an op from the cache.
func (n *Node) removeLocked(poolID string, e op) {
	var left []op
	for _, other := range n.ops[poolID] {
		if other.key != e.key {
			left = append(left, other)
		}
	}
	if n.ops[poolID] = left; len(left) == 0 {
		delete(n.ops, poolID)
	}
}

// WithUndo implements [pool.Outbox].
func (n *Node) WithUndo(ctx context.Context, poolID string, undo pool.Op, write func(context.Context) (store.Result, error),
	created ...pool.LocalHandle) (r store.Result, certain bool, err error) {
	undo.Fence = pool.NewID()
	intent, err := n.BeginIntent(ctx, poolID, undo)
	if err != nil {
		return store.Result{}, true, err
	}
	r, err = write(store.WithToken(ctx, undo.Fence))
	if errors.Is(err, store.ErrAmbiguous) {
		return r, false, err
	}
	if err != nil || !r.OK {
		created = nil
	}
	if err := n.Dequeue(ctx, poolID, intent, created...); err != nil {
		return store.Result{}, false, err
	}
	return r, true, err
}

// Owed returns how many ops the outbox has.
func (n *Node) Owed(ctx context.Context) (owed int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return 0, err
	}
	for _, ops := range n.ops {
		owed += len(ops)
	}
	return owed, nil
}
