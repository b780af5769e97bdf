package main

import (
	"fmt"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// granted is the capability that plugin/config.json claims, and all that this process does takes no other: links, VFs and
// their namespaces are changed over netlink; files in sysfs, of the ledger and the socket are root's own.
const granted = cap.NET_ADMIN

// setNoNewPrivs is PR_SET_NO_NEW_PRIVS of prctl(2).
const setNoNewPrivs = 38

// giveUpPrivileges leaves every thread of the process no more than the capability that it claims, for good. An engine gives
// a managed plugin its whole default set as well (14 capabilities, among them those to read any file, to send raw frames and
// to make device nodes), and whoever starts the process by hand as root gives it all there are. Files that it makes from now
// on are for their owner alone, from the first moment.
func giveUpPrivileges() error {
	syscall.Umask(0o077)
	had := cap.GetProc()
	if _, err := cap.Prctlw(setNoNewPrivs, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("privileges: forbid new ones: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("privileges: empty the ambient set: %w", err)
	}
	if err := boundPrivileges(had); err != nil {
		return err
	}
	left := cap.NewSet()
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		has, err := had.GetFlag(cap.Permitted, granted)
		if err == nil {
			err = left.SetFlag(flag, has, granted)
		}
		if err != nil {
			return fmt.Errorf("privileges: %w", err)
		}
	}
	if err := left.SetProc(); err != nil {
		return fmt.Errorf("privileges: keep %s alone: %w", granted, err)
	}
	return nil
}

// boundPrivileges empties the bounding set but for what is claimed. A process that may not do that keeps a bound that it
// cannot make use of: no_new_privs is set, and what it does not have it cannot get.
func boundPrivileges(had *cap.Set) error {
	if may, err := had.GetFlag(cap.Effective, cap.SETPCAP); err != nil || !may {
		return err
	}
	for c := range cap.MaxBits() {
		if c == granted {
			continue
		}
		if err := cap.DropBound(c); err != nil {
			return fmt.Errorf("privileges: drop %s: %w", c, err)
		}
	}
	return nil
}
