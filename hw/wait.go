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
	// iavf resets itself after its PF has changed its MAC, VLAN or trust, and each VF with its PF; until then it cannot be set up.
	openBound = 5 * time.Second
	// igb VFs have carrier 0.1 s after they are up. ixgbevf looks for its link every 2 s (HZ*2 in ixgbevf_service_timer, Linux 6.12),
	// so one that misses the PF's answer twice has carrier after 4 s.
	vfCarrierBound = 5 * time.Second
	// A VF that was just bound looks twice. With the time before it was unbound this leaves, of the 10 s of a call, time for another VF.
	vfReboundBound = 3 * time.Second
	// A PF that has just been brought up needs seconds to train its link. One that is up and has no cable is not waited for as long:
	// igb drops its carrier for 0.3 s when VFs are created (Linux 6.12).
	pfCarrierBound   = 6 * time.Second
	pfNoCarrierBound = 2 * time.Second
	// ice waits 0.8 s for a VF that is being reset before it says that it is (ice_check_vf_ready_for_cfg, Linux 6.12).
	vfResetBound = 3 * time.Second
	// A subnet manager configures a port within its next sweep, which a new port triggers.
	portBound = 5 * time.Second
	// igbvf requests its interrupts before it is up; a driver that leaves it to its watchdog does within a second.
	irqBound = 2 * time.Second
	// A namespace without processes ends within some 100 ms, later if many end at the same time.
	namespaceBound = 2 * time.Second
	// vfio resets a function (FLR: 0.1 s) when it is unbound; longer it takes only if it waits for a program.
	unbindBound = 2 * time.Second
	// A host answers ARP within a millisecond; a container's start can wait this long for no answer.
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

// WaitNetdev waits, until ctx ends, for a device to have a netdev in the host with its final name: on a machine that is
// booting the driver may be late, and udev renames the netdev after that. It returns at once if the device has a
// netdev, or does not exist; a PCI function exists long before it has a driver. The error matches ErrAway if no netdev
// has appeared.
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

// WaitName waits until a device's netdev has its final name, or until udev does not seem to rename it. The netdev must
// not be set up before: until Linux 6.2 the kernel does not rename a link that is up. The error matches ErrAway if the
// device has no netdev in the host.
func (h *finder) WaitName(ctx context.Context, id ID) error {
	n, err := h.Find(id)
	if err == nil || errors.Is(err, ErrBusy) { // its name is changing
		_, err = h.awaitName(ctx, id, n)
	}
	return err
}

// awaitName waits for the final name of a device's netdev. n is the netdev as it was last seen.
func (h *finder) awaitName(ctx context.Context, id ID, n Netdev) (Netdev, error) {
	err := wait(ctx, renameBound, func() (ok bool, err error) {
		// During a rename the old name looks final as well: rtnetlink has the new name first, then name_assign_type
		// changes, then the name in sysfs (net/core/dev.c, dev_change_name; Linux 6.12). So rtnetlink is read again.
		name, final := n.Name, n.Index != 0 && h.naming(n.Name) == byPolicy
		n, ok, err = h.tryFind(id, n)
		return ok && final && n.Name == name, err
	})
	if timedOut(err) { // a rule of udev keeps the name, or there is no udev
		err = nil
	}
	return n, err
}

// tryFind looks for a device's netdev once. It returns was, and not ok, while the netdev does not exist or is being
// renamed.
func (h *finder) tryFind(id ID, was Netdev) (_ Netdev, ok bool, _ error) {
	n, err := h.Find(id)
	return seen(n, was, err)
}

// tryReread is tryFind for a netdev that was found before.
func (h *links) tryReread(was Netdev) (_ Netdev, ok bool, _ error) {
	n, err := h.reread(was)
	return seen(n, was, err)
}

// seen returns n, or was and not ok if it could not be found just now.
func seen(n, was Netdev, err error) (_ Netdev, ok bool, _ error) {
	if errors.Is(err, ErrAway) || errors.Is(err, ErrBusy) {
		return was, false, nil
	}
	if err != nil {
		return was, false, err
	}
	return n, true, nil
}

// reread reads a netdev again by its ifindex. It looks for the device if that link is gone, or is another device's by now: a link that comes
// from another namespace keeps its ifindex where that is free (net/core/dev.c, __dev_change_net_namespace; Linux 6.12).
func (h *links) reread(n Netdev) (Netdev, error) {
	l, err := h.kernel.LinkAt(n.Index)
	if err != nil || !h.isOf(l, n.ID) {
		return h.Find(n.ID)
	}
	n.Link = l
	return n, nil
}

// isOf returns true if a link is certainly of the device with an ID.
func (h *links) isOf(l Link, id ID) bool {
	dir, err := h.netdevDir(l.Name)
	if dir == "" || err != nil {
		return false
	}
	pci := pciOf(dir)
	return pci == id.PCI() && (pci != "" || linkID(l) == id)
}

// The origins of a netdev's name.
const (
	renamed  = iota // it was renamed since it was read
	byKernel        // numbered by the kernel, such as eth0
	byPolicy        // set by udev or an administrator
)

// naming returns the origin of a name (name_assign_type, include/uapi/linux/netdevice.h: NET_NAME_ENUM is 1; reading a
// name of unknown origin is EINVAL).
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
