package hw

import (
	"context"
	"errors"
	"net/netip"
)

// Holder asks the segment that a device is on who has an address, by ARP or IPv6 neighbour discovery: the MAC that answers,
// or "" when none does before bound. The kernel asks, as for a frame of its own, so that it needs no raw socket; what it
// has learnt is forgotten again.
func (h *hostNetwork) Holder(ctx context.Context, device string, a netip.Addr) (MAC, error) {
	op := "ask who has " + a.String()
	l, err := h.segment(device)
	if err != nil {
		return "", &Error{Dev: device, Op: op, Err: err}
	}
	mac, known, err := h.kernel.Neighbour(l.Index, a)
	if err == nil && mac != "" || err != nil {
		return mac, wrapped(device, op, err)
	}
	if known { // perhaps from an earlier life: ask again
		err = h.kernel.ForgetNeighbour(l.Index, a)
	}
	if err == nil {
		err = h.kernel.Solicit(l.Index, a)
	}
	if err != nil {
		return "", &Error{Dev: device, Op: op, Err: err}
	}
	err = wait(ctx, holderBound, func() (bool, error) {
		mac, _, err = h.kernel.Neighbour(l.Index, a)
		return mac != "", err
	})
	if timedOut(err) || errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return mac, wrapped(device, op, errors.Join(err, h.kernel.ForgetNeighbour(l.Index, a)))
}

// wrapped is err with what was attempted, nil for nil.
func wrapped(device, op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Dev: device, Op: op, Err: err}
}

// segment finds a device that frames can be sent from.
func (h *hostNetwork) segment(device string) (Link, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return Link{}, err
	}
	for _, l := range links {
		switch {
		case l.Name != device:
		case !l.Up:
			return Link{}, errors.New("it is down: device not ready")
		case !l.Carrier:
			return Link{}, errors.New("it has no carrier: device not ready")
		default:
			return l, nil
		}
	}
	return Link{}, ErrNotFound
}
