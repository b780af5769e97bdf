package hw

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sentinels of this package. An error matches one of them, and the errno that caused it.
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

// Error returns "device: attempt: why".
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

// Because returns an error that says all that a user needs, and matches a sentinel whose text would add nothing.
func Because(kind error, format string, args ...any) error {
	return explained{fmt.Sprintf(format, args...), kind}
}

// explained is an error with a text of its own that matches a sentinel.
type explained struct {
	text string
	kind error
}

// Error returns the text.
func (e explained) Error() string { return e.text }

// Unwrap returns the sentinel.
func (e explained) Unwrap() error { return e.kind }

// FromErrno classifies an error of the kernel: the result matches the errno and the sentinel that the errno stands for.
// An errno without a sentinel, such as EPERM or EEXIST, is matched by itself or by fs.ErrPermission and fs.ErrExist. An
// error without an errno is returned as it is, nil too. No other function classifies errnos; it is exported for the
// kernels in rtnl and hwtest.
//
// The attempt and the device are left out: the callers of Kernel know both, and better names than an ifindex.
func FromErrno(err error) error {
	var no unix.Errno
	if errors.As(err, &no) {
		return errnoError{kind: sentinel(no), errno: no}
	}
	return err
}

// sentinel returns the meaning of an errno from rtnetlink or sysfs, nil if it has none.
func sentinel(no unix.Errno) error {
	switch no {
	case unix.ENODEV, unix.ENOENT, unix.ENXIO:
		return ErrNotFound
	case unix.EBUSY, unix.EAGAIN, unix.ETIMEDOUT, eprobeDefer:
		// EAGAIN is also the error of a socket whose timeout has expired.
		return ErrBusy
	case unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOSYS, unix.ENOTTY, enotsupp, enoioctlcmd:
		return ErrUnsupported
	case unix.EINVAL, unix.ERANGE, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT:
		// A VF returns EADDRNOTAVAIL for a MAC that its PF does not allow.
		return ErrInvalid
	case unix.ENETDOWN:
		return ErrDeviceFault
	}
	return nil
}

// Errnos that the kernel has for itself (include/linux/errno.h, Linux 6.12) and that some drivers return all the same:
// bnxt_set_vf_spoofchk with old firmware, for example. The C library has neither names nor texts for them.
const (
	enoioctlcmd = unix.Errno(515)
	eprobeDefer = unix.Errno(517) // a driver waits for another one
	enotsupp    = unix.Errno(524)
)

// errnoText returns the text of an errno.
func errnoText(no unix.Errno) string {
	switch no {
	case enoioctlcmd, enotsupp:
		return "operation not supported, errno " + strconv.Itoa(int(no))
	case eprobeDefer:
		return "driver requests probe retry"
	}
	return no.Error()
}

// errnoError is an errno with its meaning; errors.Is finds both.
type errnoError struct {
	kind  error // nil if the errno has no sentinel
	errno unix.Errno
}

// Error returns the sentinel's text and the errno's, once if they are the same.
func (e errnoError) Error() string {
	text := errnoText(e.errno)
	if e.kind == nil || e.kind.Error() == text || e.errno == unix.EINVAL { // which says the same in other words
		return text
	}
	return fmt.Sprintf("%v (%s)", e.kind, text)
}

// Unwrap returns both identities of the error.
func (e errnoError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.errno}
	}
	return []error{e.kind, e.errno}
}
