package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// A Breaker is the circuit breaker of a server, such as that of a shared store: a failure opens it, and one goroutine, the prober, asks the server
// until it answers and closes it. While it is open no request waits for the server. A nil Breaker, that of a store which is not shared, is never
// open.
type Breaker struct {
	failed func(error) bool // the server could not be used
	ask    func(context.Context) error
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

// NewBreaker returns a closed circuit breaker of a shared store.
func NewBreaker(shared store.Store) *Breaker {
	return NewBreakerOf(failed, func(ctx context.Context) error {
		_, err := shared.Get(ctx, probeKey)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// NewBreakerOf returns a closed circuit breaker. Errors for which failed returns true open it, and it is closed when ask succeeds.
func NewBreakerOf(failed func(error) bool, ask func(context.Context) error) *Breaker {
	ctx, end := context.WithCancel(context.Background())
	return &Breaker{failed: failed, ask: ask, ctx: ctx, end: end}
}

// IsUnavailable returns true if err means that a store could not be used, or not in time.
func IsUnavailable(err error) bool {
	return failed(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// failed returns true if err is of a store that could not be used.
func failed(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous)
}

// Report opens the circuit breaker if err is a failure of the server.
func (b *Breaker) Report(err error) {
	if b == nil || !b.failed(err) || errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
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

// Unavailable returns why the server cannot be used now, and nil if the circuit breaker is closed.
func (b *Breaker) Unavailable() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.openErr
}

// probe closes the circuit breaker as soon as the server answers.
func (b *Breaker) probe() {
	for {
		ctx, cancel := context.WithTimeout(b.ctx, probeTimeout)
		err := b.ask(ctx)
		cancel()
		if err == nil {
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
