package ipamdrv

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// A release that fails must be retried by this driver: the engine does not ask twice. With a shared store the node's outbox has it. With the
// node's own ledger, which fails if the disk is full or another process has the file, it is in an outbox of its own, whose entries are in the
// journal alone, or in memory if that cannot be written either.

// newQueue returns the outbox for a store that is this node's alone, nil if there is no journal.
func newQueue(journal node.Journal, log *zap.Logger) *node.Node {
	if journal == nil {
		return nil
	}
	nothing := store.NewMemory()
	return node.New(nothing, nothing, &lenientJournal{Journal: journal, log: log, unwritten: map[string][]byte{}}, "")
}

// enqueue puts an op into the outbox.
func (ps *pools) enqueue(ctx context.Context, id string, o pool.Op) error {
	if ps.node != nil {
		return ps.node.Enqueue(ctx, id, o)
	}
	defer ps.background.signal()
	_, err := ps.queue.BeginIntent(ctx, id, o)
	return err
}

// stuck returns true for the error of an op that will never be done, in a store that is this node's alone. It must not keep the pool's other
// requests waiting.
func (ps *pools) stuck(err error) bool { return ps.node == nil && !ps.retryable(err) }

// retryable returns true if err means that the store cannot be used now, so that a release is enqueued and done later.
func (ps *pools) retryable(err error) bool { return ps.queue != nil && node.IsUnavailable(err) }

// lenientJournal is a journal that keeps in memory what it cannot write.
type lenientJournal struct {
	node.Journal
	log *zap.Logger

	mu        sync.Mutex
	unwritten map[string][]byte // guarded by mu
}

// Add implements [node.Journal].
func (l *lenientJournal) Add(key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.Journal.Add(key, value); err != nil {
		l.log.Warn("what is released later is not on the disk, and is lost if the plugin ends before", zap.Error(err))
		l.unwritten[key] = value
	}
	return nil
}

// Remove implements [node.Journal]. An entry that stays in the file is done again by the next process, which changes nothing.
func (l *lenientJournal) Remove(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.unwritten[key]; ok {
		delete(l.unwritten, key)
		return nil
	}
	return l.Journal.Remove(key)
}

// Entries implements [node.Journal].
func (l *lenientJournal) Entries() (map[string][]byte, error) {
	entries, err := l.Journal.Entries()
	if err != nil {
		l.log.Warn("releases left from before are not known", zap.Error(err))
	}
	return entries, nil
}
