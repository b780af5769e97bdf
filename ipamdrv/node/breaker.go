package node

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// The circuit breaker of the shared store: a failure opens it, and one goroutine, the prober, asks the store until it answers and closes it.
// While it is open no request waits for the store.

const (
	probeEvery   = 500 * time.Millisecond
	probeTimeout = 2 * time.Second
	// probeKey is the key that the prober reads. It has no record.
	probeKey = "cluster/probe"
)

// IsUnavailable returns true if err means that the shared store could not be used, or not in time.
func (n *Node) IsUnavailable(err error) bool {
	return n != nil && (failed(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}

// failed returns true if err is of a store that could not be used.
func failed(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous)
}

// Report opens the circuit breaker if err is a failure of the shared store.
func (n *Node) Report(err error) {
	if n == nil || !failed(err) || errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	closed := n.openErr == nil
	n.openErr = err
	if closed && n.ctx.Err() == nil {
		n.prober.Go(n.probe)
	}
}

// Unavailable returns why the shared store cannot be used now, and nil if the circuit breaker is closed.
func (n *Node) Unavailable() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openErr
}

// probe closes the circuit breaker as soon as the shared store answers.
func (n *Node) probe() {
	for {
		ctx, cancel := context.WithTimeout(n.ctx, probeTimeout)
		_, err := n.shared.Get(ctx, probeKey)
		cancel()
		if err == nil || errors.Is(err, store.ErrNotFound) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.openErr = nil
			return
		}
		if retry.Sleep(n.ctx, probeEvery) != nil {
			return
		}
	}
}

// Close ends the prober.
func (n *Node) Close() {
	if n == nil {
		return
	}
	n.end()
	n.prober.Wait()
}
