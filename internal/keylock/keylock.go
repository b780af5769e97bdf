// Package keylock has read-write locks by key. A wait ends with the caller's context, and waiters get the lock in the order in
// which they came: hundreds of containers that start at once must not keep one of them waiting until its call has timed out.
package keylock

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

// exclusive is the weight of a lock that is not shared. A semaphore of this size with readers of weight 1 is a read-write lock
// that serves its waiters first in, first out (golang.org/x/sync/semaphore, Weighted.notifyWaiters).
const exclusive = 1 << 30

// A Map is a set of read-write locks by key. Its zero value is ready to use.
type Map struct {
	mu    sync.Mutex
	locks map[string]*lock // guarded by mu; a key that is neither held nor waited for is absent
}

// A lock is the lock of one key.
type lock struct {
	sem  *semaphore.Weighted
	refs int // holders and waiters; guarded by Map.mu
}

// Lock waits for the exclusive lock of a key, and returns what unlocks it. The error wraps the context's.
func (m *Map) Lock(ctx context.Context, key string) (unlock func(), err error) {
	return m.acquire(ctx, key, exclusive)
}

// RLock waits for the shared lock of a key, and returns what unlocks it. The error wraps the context's.
func (m *Map) RLock(ctx context.Context, key string) (unlock func(), err error) {
	return m.acquire(ctx, key, 1)
}

// TryLock returns ok if it could take the exclusive lock of a key without waiting.
func (m *Map) TryLock(key string) (unlock func(), ok bool) {
	l := m.ref(key)
	if !l.sem.TryAcquire(exclusive) {
		m.unref(key, l)
		return nil, false
	}
	return m.unlocker(key, l, exclusive), true
}

func (m *Map) acquire(ctx context.Context, key string, weight int64) (unlock func(), err error) {
	l := m.ref(key)
	// A free lock is taken even if ctx has ended: the operation itself decides what it does with such a context.
	if !l.sem.TryAcquire(weight) {
		if err := l.sem.Acquire(ctx, weight); err != nil {
			m.unref(key, l)
			return nil, fmt.Errorf("another call works on the same, and has not ended; try again in some seconds: %w", err)
		}
	}
	return m.unlocker(key, l, weight), nil
}

func (m *Map) unlocker(key string, l *lock, weight int64) func() {
	return func() {
		l.sem.Release(weight)
		m.unref(key, l)
	}
}

// ref returns the lock of a key for one more holder or waiter.
func (m *Map) ref(key string) *lock {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.locks[key]
	if l == nil {
		if m.locks == nil {
			m.locks = map[string]*lock{}
		}
		l = &lock{sem: semaphore.NewWeighted(exclusive)}
		m.locks[key] = l
	}
	l.refs++
	return l
}

// unref takes back a [Map.ref].
func (m *Map) unref(key string, l *lock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(m.locks, key)
	}
}

// LockAll takes several locks in alphabetical order, each key once, with lock, which is [Map.Lock] or [Map.RLock]. It holds all of
// them or none. Callers that take their keys with one LockAll cannot deadlock each other.
func LockAll(ctx context.Context, keys []string, lock func(context.Context, string) (func(), error)) (unlock func(), _ error) {
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	for _, k := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		u, err := lock(ctx, k)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, u)
	}
	return unlock, nil
}
