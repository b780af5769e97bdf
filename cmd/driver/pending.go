package main

import (
	"context"
	"fmt"
)

// pending is a value that is being made in the background.
type pending[T any] struct {
	settled chan struct{} // closed once value and err are there
	value   T
	err     error
}

// newPending is a value that is not there yet.
func newPending[T any]() *pending[T] { return &pending[T]{settled: make(chan struct{})} }

// settle says what became of it. It must be called once.
func (p *pending[T]) settle(value T, err error) {
	p.value, p.err = value, err
	close(p.settled)
}

// wait returns the value once it is there, or an error when ctx ends first.
func (p *pending[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-p.settled:
		return p.value, p.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("the plugin is still opening its ledger and devices: %w; try again", context.Cause(ctx))
	}
}

// on is a driver's method for a driver that may still be pending: it is given as a method expression, such as
// (*netdrv.Driver).Join, and waits within the call's deadline.
func on[D, Req, Resp any](
	driver *pending[D], method func(D, context.Context, *Req) (*Resp, error),
) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		d, err := driver.wait(ctx)
		if err != nil {
			return nil, err
		}
		return method(d, ctx, req)
	}
}
