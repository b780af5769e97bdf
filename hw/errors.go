package hw

import (
	"errors"
	"strings"
)

// Sentinels that every error of this package can be matched with, beside the errno that caused it.
var (
	// ErrNotFound: no such device in the host's namespace.
	ErrNotFound = errors.New("no such device")
	// ErrBusy: the device is used by something else, or it or the kernel cannot do this now.
	ErrBusy = errors.New("device busy")
	// ErrUnsupported: the driver or the kernel has no such operation.
	ErrUnsupported = errors.New("not supported by the driver")
	// ErrInvalid: the value is not one that the device or the kernel accepts.
	ErrInvalid = errors.New("invalid value")
	// ErrDeviceFault: the device does not work, as far as can be seen by a fault of its own; another one may. An operation
	// that merely timed out does not match it.
	ErrDeviceFault = errors.New("device not ready")
	// ErrAway: the device exists but is in another network namespace.
	ErrAway = errors.New("device is in another network namespace")
)

// Error says what was attempted on which device and why it failed.
type Error struct {
	Dev string // what the user knows it by: a name, a PCI address, "vf 3 of ens1f0 (0000:03:10.6)"
	Op  string // what was attempted, such as "set vlan 100"
	Err error
}

// Error is "device: attempt: why".
func (e *Error) Error() string {
	var parts []string
	for _, p := range []string{e.Dev, e.Op} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
