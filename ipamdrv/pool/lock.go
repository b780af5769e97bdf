package pool

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sync/semaphore"
)

// lock is the lock of a pool. One request holds it at a time; some of those that wait for a disk let others go on meanwhile.
type lock struct {
	// users has a weight of 1 for each request that has entered, and all of it for one that keeps others out. turn is for the one of them that
	// goes on: the others wait for it, or for the store.
	users, turn *semaphore.Weighted
	entered     bool // the one that goes on has entered
	exclusive   bool // none enters: nodes share the store
}

// allUsers is the weight of a request that keeps others out.
const allUsers = math.MaxInt64

func newLock(exclusive bool) lock {
	return lock{users: semaphore.NewWeighted(allUsers), turn: semaphore.NewWeighted(1), exclusive: exclusive}
}

// Lock waits until no other request uses the pool, at most as long as ctx lasts, and keeps others out.
func (l *lock) Lock(ctx context.Context) error { return l.acquire(ctx, allUsers) }

// Enter is Lock for an allocation of any address, or a release. While the store writes one, which takes a disk milliseconds, others that have
// entered go on, so that their writes share a sync of the disk. In a store that nodes share it is Lock.
func (l *lock) Enter(ctx context.Context) error {
	if l.exclusive {
		return l.Lock(ctx)
	}
	return l.acquire(ctx, 1)
}

func (l *lock) acquire(ctx context.Context, weight int64) error {
	err := l.users.Acquire(ctx, weight)
	if err == nil {
		if err = l.turn.Acquire(ctx, 1); err != nil {
			l.users.Release(weight)
		}
	}
	if err != nil {
		return fmt.Errorf("waiting for an earlier request: %w", err)
	}
	l.entered = weight != allUsers
	return nil
}

// Unlock ends the caller's use of the pool.
func (l *lock) Unlock() {
	weight := int64(allUsers)
	if l.entered {
		weight = 1
	}
	l.turn.Release(1)
	l.users.Release(weight)
}

// Upgrade makes the lock of a caller that has entered that of Lock. It waits for the others, and the pool may be another one or gone then. It
// returns true if the caller kept others out before, and nothing has changed.
func (l *lock) Upgrade() bool {
	if !l.entered {
		return true
	}
	l.Unlock()
	_ = l.Lock(context.Background()) // cannot fail; those that it waits for do not wait for long
	return false
}

// pause lets others that have entered go on until resume is called.
func (l *lock) pause() (resume func()) {
	l.turn.Release(1)
	return func() { _ = l.turn.Acquire(context.Background(), 1) } // cannot fail
}
