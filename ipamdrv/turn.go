package ipamdrv

import (
	"context"
	"fmt"
)

// turn is a lock that one waits for no longer than one's context lasts. It holds a value while somebody has it.
type turn chan struct{}

// newTurn is one that is free.
func newTurn() turn { return make(turn, 1) }

// lock waits for the caller's turn, not longer than ctx lasts.
func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for an earlier request: %w", ctx.Err())
	}
}

// unlock ends the caller's turn.
func (t turn) unlock() { <-t }
