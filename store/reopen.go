package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

// reopenEvery is the time between two attempts to open a store.
const reopenEvery = time.Second

// A Reopening is a Store that is opened in the background. Until the first attempt has ended, calls wait for it as long as their
// contexts last. After a failed attempt they fail with its error, see [Unavailable], until a later one succeeds.
type Reopening struct {
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	tried chan struct{} // closed after the first attempt
	ended chan struct{} // closed after the last attempt

	timed func(op string, took time.Duration, err error) // see Timed; may be nil

	mu  sync.Mutex
	now Store // guarded by mu; nil before the first attempt has ended
}

// Reopen returns at once, and calls open in the background. If open fails, because another process has the file for a moment or the
// disk is full, it is called again every second until it succeeds, the store is closed, or the error is one that does not go away by
// itself ([ErrCorrupt], [ErrNewer]). Reopen calls report with each error that differs from the one before, and with nil if open
// succeeds after an error.
func Reopen(open func() (Store, error), report func(error)) *Reopening {
	ctx, stop := context.WithCancel(context.Background())
	r := &Reopening{ctx: ctx, stop: stop, tried: make(chan struct{}), ended: make(chan struct{})}
	go r.run(open, report)
	return r
}

// run tries until there is a result or the store is closed.
func (r *Reopening) run(open func() (Store, error), report func(error)) {
	defer close(r.ended)
	last := ""
	first := true
	// The only error is that the store was closed.
	_ = retry.Poll(r.ctx, reopenEvery, math.MaxInt64, func() (bool, error) {
		err := r.try(open)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != last {
			report(err)
		}
		last = text
		if first {
			first = false
			close(r.tried)
		}
		return err == nil || permanent(err), nil
	})
}

// try calls open and takes over its result. If the store was closed meanwhile, try closes the result.
func (r *Reopening) try(open func() (Store, error)) error {
	s, err := open()
	if err != nil {
		s = Unavailable(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return errors.Join(err, s.Close())
	}
	r.now = s
	return err
}

// permanent returns true for an error that no further attempt can end.
func permanent(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) }

// store returns the store as it is now. It waits for the first attempt.
func (r *Reopening) store(ctx context.Context) Store {
	select {
	case <-r.tried:
	case <-r.ctx.Done():
	case <-ctx.Done():
		select {
		case <-r.tried: // the store says what it does with a context that has ended
		default:
			return Unavailable(fmt.Errorf("the plugin is still opening its ledger: %w; try again", context.Cause(ctx)))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return Unavailable(ErrClosed)
	}
	return r.now
}

// Timed has report called after each transaction ("txn"), read ("get") and listing ("range"), with its error. An absent key is no error, nor
// is what the function of a listing returns. It must be called before the store is used, and report must not wait for anything.
func (r *Reopening) Timed(report func(op string, took time.Duration, err error)) { r.timed = report }

// report tells what Timed has asked for.
func (r *Reopening) report(op string, since time.Time, err error) {
	if r.timed == nil {
		return
	}
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	r.timed(op, time.Since(since), err)
}

// Txn implements [Store].
func (r *Reopening) Txn(ctx context.Context, conds []Cond, then []Op) (Result, error) {
	start := time.Now()
	result, err := r.store(ctx).Txn(ctx, conds, then)
	r.report("txn", start, err)
	return result, err
}

// Get implements [Store].
func (r *Reopening) Get(ctx context.Context, key string) (KV, error) {
	start := time.Now()
	kv, err := r.store(ctx).Get(ctx, key)
	r.report("get", start, err)
	return kv, err
}

// Range implements [Store].
func (r *Reopening) Range(ctx context.Context, prefix string, fn func(KV) error) error {
	start := time.Now()
	var stopped error
	err := r.store(ctx).Range(ctx, prefix, func(kv KV) error {
		stopped = fn(kv)
		return stopped
	})
	if stopped != nil {
		r.report("range", start, nil)
	} else {
		r.report("range", start, err)
	}
	return err
}

// Close implements [Store]. It waits for an attempt that is under way.
func (r *Reopening) Close() error {
	r.stop()
	<-r.ended
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return nil
	}
	return r.now.Close()
}

// Watch implements [Watcher] if the store does.
func (r *Reopening) Watch(ctx context.Context, prefix string, rev int64, fn func(Changes) error) error {
	return Watch(ctx, r.store(ctx), prefix, rev, fn)
}

// Pages implements [Watcher] if the store does.
func (r *Reopening) Pages(ctx context.Context, prefix string, fn func(rev int64, page []KV) error) error {
	return Pages(ctx, r.store(ctx), prefix, fn)
}

// Schema implements [Gate] if the store does.
func (r *Reopening) Schema(ctx context.Context) (int, error) { return Schema(ctx, r.store(ctx)) }

// RaiseSchema implements [Gate] if the store does.
func (r *Reopening) RaiseSchema(ctx context.Context) error { return RaiseSchema(ctx, r.store(ctx)) }

// Servers implements [Served] if the store does.
func (r *Reopening) Servers(ctx context.Context) []ServerStatus { return Servers(ctx, r.store(ctx)) }

// Watermark implements [RollbackDetector] if the store does.
func (r *Reopening) Watermark() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.now.(RollbackDetector); ok {
		return d.Watermark()
	}
	return nil
}

// SetWatermark implements [RollbackDetector]. It is an error: the function that opens the store sets the watermark, before the first use.
func (r *Reopening) SetWatermark([]byte) error {
	return errors.New("the watermark of a store that is opened in the background is set when it is opened")
}

// Fence implements [Fencer] if the store does.
func (r *Reopening) Fence(ctx context.Context, token string) error {
	return Fence(ctx, r.store(ctx), token)
}

// Unavailable is a Store whose every call fails with err, which then also matches [ErrUnavailable]. With it the plugin comes up without
// its ledger, and says why to every request.
func Unavailable(err error) Store { return unavailable{cause: err} }

// unavailable is both the store and its error.
type unavailable struct{ cause error }

// Error returns the text of the cause, which says more than "unavailable".
func (u unavailable) Error() string {
	if u.cause == nil {
		return ErrUnavailable.Error()
	}
	return u.cause.Error()
}

// Is makes the error match [ErrUnavailable] beside its cause.
func (u unavailable) Is(target error) bool { return errors.Is(ErrUnavailable, target) }

// Unwrap returns the cause.
func (u unavailable) Unwrap() error { return u.cause }

// Txn implements [Store].
func (u unavailable) Txn(context.Context, []Cond, []Op) (Result, error) { return Result{}, u }

// Get implements [Store].
func (u unavailable) Get(context.Context, string) (KV, error) { return KV{}, u }

// Range implements [Store].
func (u unavailable) Range(context.Context, string, func(KV) error) error { return u }

// Watch implements [Watcher].
func (u unavailable) Watch(context.Context, string, int64, func(Changes) error) error { return u }

// Pages implements [Watcher].
func (u unavailable) Pages(context.Context, string, func(int64, []KV) error) error { return u }

// Schema implements [Gate].
func (u unavailable) Schema(context.Context) (int, error) { return 0, u }

// RaiseSchema implements [Gate].
func (u unavailable) RaiseSchema(context.Context) error { return u }

// Close implements [Store]. There is nothing to close.
func (u unavailable) Close() error { return nil }
