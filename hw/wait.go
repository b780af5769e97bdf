package hw

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

// pollEvery is the interval at which conditions are checked. A check costs a few file reads or one netlink dump.
const pollEvery = 20 * time.Millisecond

// Bounds of the waits in this package. They are bounds, not delays: every wait ends when its condition holds.
const (
	// A VF's driver creates the netdev within 40 ms on igb, within about a second on firmware-heavy NICs.
	probeBound = 4 * time.Second
	// udev renames a fresh netdev within some 100 ms, later on a machine that is booting.
	renameBound = 4 * time.Second
	// igb VFs have carrier 0.1 s after they are up; a PF that has just been brought up needs seconds to train its link.
	vfCarrierBound = 2 * time.Second
	pfCarrierBound = 6 * time.Second
	// ice waits 0.8 s for a VF that is being reset before it says that it is (ice_check_vf_ready_for_cfg, Linux 6.12).
	vfResetBound = 3 * time.Second
	// A subnet manager configures a port within its next sweep, which a new port triggers.
	portBound = 5 * time.Second
	// igbvf requests its interrupts before it is up; a driver that leaves it to its watchdog does within a second.
	irqBound = 2 * time.Second
	// A namespace that nobody is in any more ends within some 100 ms, later if many do at once.
	namespaceBound = 2 * time.Second
	// A host answers ARP within a millisecond; this is what a container's start can wait for nobody.
	holderBound = 250 * time.Millisecond
	// The caller's context says for how long WaitNetdev waits; this is longer.
	netdevBound = time.Minute
)

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

// WaitNetdev waits, for as long as ctx, until a device has a netdev in the host under the name that it will keep: on a machine that is
// booting its driver may be late, and udev names it after that. It returns at once when the device has one, or is not there at
// all; a PCI function is there long before its driver. The error matches ErrAway when none has come.
func (h *finder) WaitNetdev(ctx context.Context, id ID) error {
	n, err := h.Find(id)
	if !errors.Is(err, ErrAway) {
		return err
	}
	away := err
	err = wait(ctx, netdevBound, func() (ok bool, err error) {
		n, ok, err = h.tryFind(id, n)
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

// awaitName waits for the name that a device's netdev will keep. n is the netdev as it was last seen.
func (h *finder) awaitName(ctx context.Context, id ID, n Netdev) (Netdev, error) {
	err := wait(ctx, renameBound, func() (ok bool, err error) {
		if n, ok, err = h.tryFind(id, n); !ok || h.naming(n.Name) != byPolicy {
			return false, err
		}
		// The old name, too, says so while the kernel is at it: rtnetlink has the new one first, then the mark is set,
		// then sysfs follows (net/core/dev.c, dev_change_name; Linux 6.12). Only a look at rtnetlink after it tells.
		name := n.Name
		n, ok, err = h.tryFind(id, n)
		return ok && n.Name == name, err
	})
	if timedOut(err) { // udev has a rule of its own for it, or is not there
		err = nil
	}
	return n, err
}

// tryFind looks for a device's netdev once. It is what it was, and not ok, while it is not there or its name is changing.
func (h *finder) tryFind(id ID, was Netdev) (_ Netdev, ok bool, _ error) {
	n, err := h.Find(id)
	if errors.Is(err, ErrAway) || errors.Is(err, ErrBusy) {
		return was, false, nil
	}
	if err != nil {
		return was, false, err
	}
	return n, true, nil
}

// What is known of how a netdev got its name.
const (
	renamed  = iota // it has been renamed since it was looked at
	byKernel        // counted out by the kernel, such as eth0
	byPolicy        // given by udev or by people
)

// naming tells how a netdev got its name (name_assign_type, include/uapi/linux/netdevice.h: NET_NAME_ENUM is 1; reading
// a name of unknown origin is EINVAL).
func (h *finder) naming(netdev string) int {
	const enumerated = "1"
	t, ok, err := h.sys.text("class/net/" + netdev + "/name_assign_type")
	switch {
	case err == nil && !ok:
		return renamed
	case t == enumerated:
		return byKernel
	}
	return byPolicy
}
