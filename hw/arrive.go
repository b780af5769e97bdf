package hw

import (
	"context"
	"errors"
	"time"
)

// Arrive waits, for as long as ctx, until a device has a netdev in the host under the name that it will keep: on a machine that is
// booting its driver may be late, and udev names it after that. It returns at once when the device has one, or is not there at
// all; a PCI function is there long before its driver. The error matches ErrAway when none has come.
func (h *Host) Arrive(ctx context.Context, id ID) error {
	_, err := h.Find(id)
	if !errors.Is(err, ErrAway) {
		return err
	}
	away := err
	err = wait(ctx, arriveBound, func() (bool, error) {
		if _, err = h.Find(id); errors.Is(err, ErrAway) {
			return false, nil
		}
		return true, err
	})
	if errors.Is(err, ErrNotReady) || ctx.Err() != nil {
		return away
	}
	if err != nil {
		return err
	}
	return h.AwaitName(ctx, id)
}

// AwaitName waits until a device's netdev has the name that it will keep, or nobody seems to give it one. It must not be brought up
// before: until Linux 6.2 the kernel does not rename what is up.
func (h *Host) AwaitName(ctx context.Context, id ID) error {
	err := wait(ctx, renameBound, func() (bool, error) {
		n, err := h.Find(id)
		return err != nil || h.naming(n.Name) == byPolicy, err
	})
	if errors.Is(err, ErrNotReady) { // nobody names it
		return nil
	}
	return err
}

// arriveBound is longer than anybody waits: the caller's context says for how long.
const arriveBound = time.Minute
