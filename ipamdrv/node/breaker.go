package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// A Breaker is the circuit breaker of a shared store: a failure opens it, and one goroutine, the prober, asks the store until it answers and
// closes it. While it is open no request waits for the store. A nil Breaker, that of a store which is not shared, is never open.
type Breaker struct {
	shared store.Store
	ctx    context.Context // of the prober; ends with Close
	end    context.CancelFunc
	prober sync.WaitGroup

	mu      sync.Mutex
	openErr error // guarded by mu: why it is open; nil if it is closed
}

const (
	probeEvery   = 500 * time.Millisecond
	probeTimeout = 2 * time.Second
	// probeKey is the key that the prober reads. It has no record.
	probeKey = "cluster/probe"
)

// NewBreaker returns a closed circuit breaker.
func NewBreaker(shared store.Store) *Breaker {
	ctx, end := context.WithCancel(context.Background())
	return &Breaker{shared: shared, ctx: ctx, end: end}
}

// IsUnavailable returns true if err means that a store could not be used, or not in time.
func IsUnavailable(err error) bool {
	return failed(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// failed returns true if err is of a store that could not be used.
func failed(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous)
}

// Report opens the circuit breaker if err is a failure of the shared store.
func (b *Breaker) Report(err error) {
	if b == nil || !failed(err) || errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := b.openErr == nil
	b.openErr = err
	if closed && b.ctx.Err() == nil {
		b.prober.Go(b.probe)
	}
}

// Unavailable returns why the shared store cannot be used now, and nil if the circuit breaker is closed.
func (b *Breaker) Unavailable() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.openErr
}

// probe closes the circuit breaker as soon as the shared store answers.
func (b *Breaker) probe() {
	for {
		ctx, cancel := context.WithTimeout(b.ctx, probeTimeout)
		_, err := b.shared.Get(ctx, probeKey)
		cancel()
		if err == nil || errors.Is(err, store.ErrNotFound) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.openErr = nil
			return
		}
		if retry.Sleep(b.ctx, probeEvery) != nil {
			return
		}
	}
}

// Close ends the prober.
func (b *Breaker) Close() {
	if b != nil {
		b.end()
		b.prober.Wait()
	}
}
