package store

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lateEvery is how often a store that could not be opened is tried again.
const lateEvery = time.Second

// late is a Store that may be there only some time later.
type late struct {
	stop context.CancelFunc // ends the trying

	mu  sync.Mutex
	now Store // guarded by mu
}

// Late opens a store. One that cannot be opened now, because another process has it for a moment or the disk is full, is tried again
// every second until it can, is closed, or turns out to be one that nobody can open ([ErrCorrupt], [ErrNewer]). Until then every
// call fails with the reason of the last attempt, see [Unavailable]. tell is told of each reason that is new, and of nil when a store
// could be opened after all.
func Late(open func() (Store, error), tell func(error)) Store {
	ctx, stop := context.WithCancel(context.Background())
	l := &late{stop: stop}
	err := l.try(ctx, open)
	if err == nil {
		return l
	}
	if tell(err); !hopeless(err) {
		go l.keepTrying(ctx, open, tell, err)
	}
	return l
}

// keepTrying tries until there is a result or ctx ends.
func (l *late) keepTrying(ctx context.Context, open func() (Store, error), tell func(error), last error) {
	again := time.NewTicker(lateEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		err := l.try(ctx, open)
		if err == nil || err.Error() != last.Error() {
			tell(err)
		}
		if last = err; err == nil || hopeless(err) {
			return
		}
	}
}

// try makes what open returns the store. One that was closed meanwhile is closed again.
func (l *late) try(ctx context.Context, open func() (Store, error)) error {
	s, err := open()
	if err != nil {
		s = Unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return errors.Join(err, s.Close())
	}
	l.now = s
	return err
}

// hopeless tells whether there is no use in trying again.
func hopeless(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) }

// store is what it is now.
func (l *late) store() Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Txn implements [Store].
func (l *late) Txn(ctx context.Context, conds []Cond, then []Op) (Result, error) {
	return l.store().Txn(ctx, conds, then)
}

// Get implements [Store].
func (l *late) Get(ctx context.Context, key string) (KV, error) { return l.store().Get(ctx, key) }

// Range implements [Store].
func (l *late) Range(ctx context.Context, prefix string, fn func(KV) error) error {
	return l.store().Range(ctx, prefix, fn)
}

// Close implements [Store].
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	return l.now.Close()
}

// Past implements [Rememberer] for a store that does.
func (l *late) Past() []byte {
	if r, ok := l.store().(Rememberer); ok {
		return r.Past()
	}
	return nil
}

// Recall implements [Rememberer] for a store that does.
func (l *late) Recall(past []byte) error {
	if r, ok := l.store().(Rememberer); ok {
		return r.Recall(past)
	}
	return nil
}
