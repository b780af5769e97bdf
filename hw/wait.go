package hw

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

// pollEvery is the interval at which conditions are checked. A check costs a few file reads or one netlink dump.
const pollEvery = 20 * time.Millisecond

// wait polls cond until it is done or fails, bound has passed (timedOut) or ctx ends (its error).
func wait(ctx context.Context, bound time.Duration, cond func() (done bool, err error)) error {
	return retry.Poll(ctx, pollEvery, bound, cond)
}

// timedOut returns true for the error of a wait whose bound has passed.
func timedOut(err error) bool { return errors.Is(err, retry.ErrTimeout) }

// faultIfTimedOut turns the time-out of a wait for a device into the device's fault.
func faultIfTimedOut(err error) error {
	if timedOut(err) {
		return ErrDeviceFault
	}
	return err
}
