package boltstore

import (
	"go.etcd.io/bbolt"

	"github.com/mellanox/passthrough/store"
)

// Hold keeps transactions waiting until release is called.
func Hold(s store.Store) (release func()) {
	writer := s.(*bolt).queue.writer
	writer <- struct{}{}
	return func() { <-writer }
}

// Waiting returns how many transactions wait.
func Waiting(s store.Store) int {
	q := &s.(*bolt).queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// Commits returns how many transactions bbolt has committed.
func Commits(s store.Store) (n int) {
	_ = s.(*bolt).db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil })
	return n
}
