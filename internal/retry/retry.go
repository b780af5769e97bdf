// Package retry has the ways in which the plugin waits for something: it polls a condition, and it tries an operation again
// with a backoff. Every wait ends with its context or its bound, and makes no use of goroutines, so that tests can run it in
// testing/synctest.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// ErrTimeout is the error of [Poll] when the bound has passed before the condition held.
var ErrTimeout = errors.New("timed out")

// Poll checks cond at once, and then every interval, until it is done or returns an error. Poll returns that error, the
// context's error if ctx ends first, or [ErrTimeout] if bound passes first. The condition is checked at least once.
func Poll(ctx context.Context, every, bound time.Duration, cond func() (done bool, err error)) error {
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := cond(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return ErrTimeout
		case <-tick.C:
		}
	}
}

// A Backoff is how long to wait after a number of failures in a row: First after one, twice as long after each further one, and
// never longer than Max.
type Backoff struct {
	First, Max time.Duration
}

// Delay returns how long to wait after so many failures in a row; 0 after none.
func (b Backoff) Delay(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	d := b.First
	for range failures - 1 {
		if d >= b.Max {
			break
		}
		d *= 2
	}
	return min(d, b.Max)
}

// Jittered returns a random duration from 0 to [Backoff.Delay]. Several clients that failed together do not come back together.
func (b Backoff) Jittered(failures int) time.Duration {
	return rand.N(b.Delay(failures) + 1)
}

// Do runs f until it succeeds, its error is not retryable, or bound has passed, and returns the last result of f. The first retry
// follows at once, the others after a jittered backoff. If ctx ends during a pause, the error matches both f's last error and the
// context's.
func Do(ctx context.Context, b Backoff, bound time.Duration, retryable func(error) bool, f func() error) error {
	start := time.Now()
	for failures := 0; ; failures++ {
		err := f()
		if err == nil || !retryable(err) || time.Since(start) > bound {
			return err
		}
		if stopped := Sleep(ctx, b.Jittered(failures)); stopped != nil {
			return &interrupted{last: err, ctx: stopped}
		}
	}
}

// Times runs f up to n times without a pause, until it succeeds or its error is not retryable, and returns its last error.
func Times(n int, retryable func(error) bool, f func() error) error {
	var err error
	for range n {
		if err = f(); err == nil || !retryable(err) {
			return err
		}
	}
	return err
}

// Sleep waits for d, and returns the context's error if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// interrupted is the error of an operation whose context ended between two attempts.
type interrupted struct {
	last, ctx error
}

func (e *interrupted) Error() string   { return e.last.Error() + " (" + e.ctx.Error() + ")" }
func (e *interrupted) Unwrap() []error { return []error{e.last, e.ctx} }
