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

// peek returns the value if it is there and good, without waiting for it.
func (p *pending[T]) peek() (value T, ok bool) {
	select {
	case <-p.settled:
		return p.value, p.err == nil
	default:
		return value, false
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

// atOnce is on for calls that the engine's own start depends on: the driver hears them if it is there, and otherwise bare answers.
func atOnce[D, Req, Resp any](
	driver *pending[D], method func(D, context.Context, *Req) (*Resp, error), bare func(context.Context, *Req) (*Resp, error),
) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		if d, ok := driver.peek(); ok {
			return method(d, ctx, req)
		}
		return bare(ctx, req)
	}
}
