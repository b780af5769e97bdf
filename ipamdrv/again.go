package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A request whose ledger somebody else changes meanwhile is tried again: at once, because most often that was one other, and then
// after pauses drawn by lot, from a span that doubles. Of many nodes that write one record at once, as when all join a pool, one
// succeeds at a time, and the others get out of each other's way.
const (
	againFirst = 2 * time.Millisecond
	againMost  = 250 * time.Millisecond
	// againTime is how long that goes on. An engine waits some 10 seconds for an answer.
	againTime = 9 * time.Second
)

// again tries until the reason to fail is not that somebody else changed the ledger meanwhile, or ctx ends.
func again(ctx context.Context, try func() error) error {
	begun := time.Now()
	for span := time.Duration(0); ; span = min(max(2*span, againFirst), againMost) {
		err := try()
		if !errors.Is(err, errChanged) || time.Since(begun) > againTime {
			return err
		}
		pause := time.NewTimer(rand.N(span + 1))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
