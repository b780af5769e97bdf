package hw_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

func TestFromErrno(t *testing.T) {
	plain := errors.New("no errno at all")
	tests := []struct {
		err   error
		text  string
		match []error
	}{
		{syscall.ENODEV, "no such device", []error{hw.ErrNotFound, syscall.ENODEV}},
		{syscall.ENOENT, "no such device (no such file or directory)",
			[]error{hw.ErrNotFound, syscall.ENOENT, fs.ErrNotExist}},
		{syscall.EBUSY, "device busy (device or resource busy)", []error{hw.ErrBusy, syscall.EBUSY}},
		{syscall.EOPNOTSUPP, "not supported by the driver (operation not supported)",
			[]error{hw.ErrUnsupported, syscall.ENOTSUP}},
		{syscall.EPROTONOSUPPORT, "not supported by the driver (protocol not supported)", []error{hw.ErrUnsupported}},
		{syscall.ENOSYS, "not supported by the driver (function not implemented)", []error{hw.ErrUnsupported}},
		{syscall.Errno(524), "not supported by the driver (operation not supported, errno 524)", []error{hw.ErrUnsupported}}, // ENOTSUPP
		{syscall.Errno(515), "not supported by the driver (operation not supported, errno 515)", []error{hw.ErrUnsupported}}, // ENOIOCTLCMD
		{syscall.Errno(517), "device busy (driver requests probe retry)", []error{hw.ErrBusy}},                               // EPROBE_DEFER
		{syscall.EINVAL, "invalid argument", []error{hw.ErrInvalid, syscall.EINVAL}},
		{syscall.ERANGE, "invalid value (numerical result out of range)", []error{hw.ErrInvalid, syscall.ERANGE}},
		{syscall.EADDRNOTAVAIL, "invalid value (cannot assign requested address)", []error{hw.ErrInvalid}},
		{syscall.EAGAIN, "device busy (resource temporarily unavailable)", []error{hw.ErrBusy}},
		{syscall.EPERM, "operation not permitted", []error{syscall.EPERM, fs.ErrPermission}},
		{syscall.EEXIST, "file exists", []error{syscall.EEXIST, fs.ErrExist}},
		{&os.PathError{Op: "write", Path: "mtu", Err: syscall.EBUSY}, "device busy (device or resource busy)",
			[]error{hw.ErrBusy}},
		{fmt.Errorf("wrapped: %w", syscall.ENXIO), "no such device (no such device or address)", []error{hw.ErrNotFound}},
		{plain, "no errno at all", []error{plain}},
	}
	for _, tt := range tests {
		got := hw.FromErrno(tt.err)
		if got.Error() != tt.text {
			t.Errorf("%v: text is %q, want %q", tt.err, got, tt.text)
		}
		for _, m := range tt.match {
			if !errors.Is(got, m) {
				t.Errorf("%v: does not match %v", tt.err, m)
			}
		}
	}
	if got := hw.FromErrno(nil); got != nil {
		t.Errorf("nil became %v", got)
	}
	if got := hw.FromErrno(syscall.EPERM); errors.Is(got, hw.ErrNotFound) || errors.Is(got, hw.ErrBusy) {
		t.Errorf("%v matches a sentinel that it does not mean", got)
	}
}
