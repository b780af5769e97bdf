package hw

import (
	"context"
	"errors"
	"time"
)

// WaitNetdev waits, for as long as ctx, until a device has a netdev in the host under the name that it will keep: on a machine that is
// booting its driver may be late, and udev names it after that. It returns at once when the device has one, or is not there at
// all; a PCI function is there long before its driver. The error matches ErrAway when none has come.
func (h *finder) WaitNetdev(ctx context.Context, id ID) error {
	n, err := h.Find(id)
	if !errors.Is(err, ErrAway) {
		return err
	}
	away := err
	err = wait(ctx, arriveBound, func() (ok bool, err error) {
		n, ok, err = h.glance(id, n)
		return ok, err
	})
	if timedOut(err) || ctx.Err() != nil {
		return away
	}
	if err == nil {
		_, err = h.awaitName(ctx, id, n)
	}
	return err
}

// WaitName waits until a device's netdev has the name that it will keep, or nobody seems to give it one. It must not be brought up
// before: until Linux 6.2 the kernel does not rename what is up. The error matches ErrAway when it has no netdev in the host.
func (h *finder) WaitName(ctx context.Context, id ID) error {
	n, err := h.Find(id)
	if err == nil || errors.Is(err, ErrBusy) { // its name is changing
		_, err = h.awaitName(ctx, id, n)
	}
	return err
}

// arriveBound is longer than anybody waits: the caller's context says for how long.
const arriveBound = time.Minute
