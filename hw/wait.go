package hw

import (
	"context"
	"time"
)

// pollEvery is how often a condition is looked at. Looking costs a few file reads or one netlink dump.
const pollEvery = 20 * time.Millisecond

// wait looks at cond until it holds or fails, bound has passed (ErrNotReady) or ctx ends (its error).
func wait(ctx context.Context, bound time.Duration, cond func() (bool, error)) error {
	end := time.NewTimer(bound)
	defer end.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return ErrNotReady
		case <-tick.C:
		}
	}
}
