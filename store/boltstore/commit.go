package boltstore

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/mellanox/passthrough/store"
)

// A transaction of the store waits in the queue until it is committed in one transaction of bbolt with all that wait then. The caller that
// finds no other one writing does that for all: there is no goroutine, and a transaction that is alone waits for nothing.

// queue has the transactions that wait.
type queue struct {
	// writer has room for the one that writes: bbolt allows one at a time. It is a channel because a transaction waits for it and, at the same
	// time, for another caller to commit it.
	writer chan struct{}

	mu      sync.Mutex
	waiting []*waiting // guarded by mu
}

// waiting is a transaction in the queue. What it became is set before done is closed.
type waiting struct {
	ctx   context.Context
	conds []store.Cond
	then  []store.Op

	done   chan struct{}
	result store.Result
	err    error
}

func newQueue() queue { return queue{writer: make(chan struct{}, 1)} }

// add adds a transaction.
func (q *queue) add(t *waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, t)
}

// take removes all transactions, in the order in which they came.
func (q *queue) take() []*waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// withdraw removes a transaction; false if it was taken before.
func (q *queue) withdraw(t *waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, t)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return i >= 0
}

// Txn implements [store.Store]. The wait for others ends with ctx; a transaction that is being committed then is waited for, so that its
// outcome is known.
func (b *bolt) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if err := store.CheckTxn(conds, then); err != nil {
		return store.Result{}, err
	}
	t := &waiting{ctx: ctx, conds: conds, then: then, done: make(chan struct{})}
	b.queue.add(t)
	select {
	case <-t.done:
		return t.result, t.err
	case b.queue.writer <- struct{}{}:
		b.commitWaiting()
	case <-ctx.Done():
		if b.queue.withdraw(t) {
			return store.Result{}, b.unavailable("write", ctx.Err())
		}
	}
	<-t.done // it was in what was taken, by this call or by another one
	return t.result, t.err
}

// commitWaiting commits all that waits, and lets the next one write.
func (b *bolt) commitWaiting() {
	group := b.queue.take()
	defer func() {
		for _, t := range group { // bbolt panics if it finds the file damaged, and the server survives that
			if !t.answered() {
				t.answer(store.Result{}, &fileError{path: b.path, attempt: "write", kind: store.ErrAmbiguous})
			}
		}
		<-b.queue.writer
	}()
	b.commit(group)
}

// answer tells what became of a transaction.
func (t *waiting) answer(r store.Result, err error) {
	if err != nil {
		r = store.Result{}
	}
	t.result, t.err = r, err
	close(t.done)
}

// answered returns true after answer.
func (t *waiting) answered() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// commit commits a group of transactions in one of bbolt, and answers each. If that is not possible it commits them one by one: one that is
// too large for the disk must not keep the others out, and a group may be too large where each is not.
func (b *bolt) commit(group []*waiting) {
	group = slices.DeleteFunc(slices.Clone(group), func(t *waiting) bool {
		err := b.usable(t.ctx, "write")
		if err != nil {
			t.answer(store.Result{}, err)
		}
		return err != nil
	})
	if len(group) == 0 {
		return
	}
	results, err := b.commitTogether(group)
	if err != nil && len(group) > 1 && !errors.Is(err, store.ErrAmbiguous) {
		for _, t := range group {
			b.commit([]*waiting{t})
		}
		return
	}
	for i, t := range group {
		t.answer(results[i], err)
	}
}

// commitTogether runs a group of transactions in one of bbolt, each on what the ones before it have left. If it returns an error, none was applied, or
// it matches [store.ErrAmbiguous] and all may have been.
func (b *bolt) commitTogether(group []*waiting) ([]store.Result, error) {
	results := make([]store.Result, len(group))
	writes := slices.ContainsFunc(group, func(t *waiting) bool { return len(t.then) > 0 })
	tx, err := b.db.Begin(writes)
	if err != nil {
		return results, b.unavailable("write", err)
	}
	// After a commit this returns "tx closed"; on every other path nothing can be lost.
	defer func() { _ = tx.Rollback() }()

	var last int64 // revision that was written
	for i, t := range group {
		if results[i], err = apply(tx, t.conds, t.then); err != nil {
			return results, b.unavailable("write", err)
		}
		if results[i].OK && len(t.then) > 0 {
			last = results[i].Rev
		}
	}
	if last == 0 {
		return results, nil
	}
	if err := tx.Commit(); err != nil {
		return results, b.afterFailedCommit(last, err)
	}
	return results, nil
}

// afterFailedCommit returns the error of a failed commit. bbolt writes the data first and switches over with the last page: if the old
// revision shows, nothing was written. If the new one shows, the last sync failed, and the disk may or may not have it: every call fails
// until the ledger is opened again.
func (b *bolt) afterFailedCommit(rev int64, cause error) error {
	var seen int64
	err := b.db.View(func(tx *bbolt.Tx) error {
		h, err := decodeHead(tx.Bucket([]byte(bucketMeta)).Get([]byte(metaHead)))
		seen = h.rev
		return err
	})
	if err == nil && seen < rev {
		return b.unavailable("write", cause)
	}
	b.broken.Store(&fileError{path: b.path, attempt: "use", kind: store.ErrUnavailable, cause: cause,
		remedy: "an earlier write could not be confirmed; check the disk, then restart the plugin"})
	return &fileError{path: b.path, attempt: "write", kind: store.ErrAmbiguous, cause: errors.Join(cause, err)}
}
