package rtnl

import (
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestDump(t *testing.T) {
	// answers gives one error after the other, with half a listing each time, and in the end a whole one.
	answers := func(errs ...error) func() ([]int, error) {
		return func() ([]int, error) {
			if len(errs) == 0 {
				return []int{1, 2}, nil
			}
			err := errs[0]
			errs = errs[1:]
			return []int{1}, err
		}
	}
	got, err := dump(answers(netlink.ErrDumpInterrupted, unix.EINTR, netlink.ErrDumpInterrupted))
	if err != nil || !slices.Equal(got, []int{1, 2}) {
		t.Errorf("disturbed three times: %v, %v", got, err)
	}
	got, err = dump(answers(unix.EPERM))
	if !errors.Is(err, unix.EPERM) || got != nil {
		t.Errorf("refused: %v, %v", got, err)
	}
	got, err = dump(answers(slices.Repeat([]error{netlink.ErrDumpInterrupted}, dumpTries)...))
	const want = "listing changed 10 times while it was read: device busy"
	if err == nil || err.Error() != want || got != nil {
		t.Errorf("disturbed for ever: %v, %v, want %s", got, err, want)
	}
}
