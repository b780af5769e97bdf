package main

import (
	"fmt"
	"slices"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// granted is the capability that plugin/config.json asks for. The process needs no other: links, VFs and their namespaces are changed over
// netlink, and root owns the files in sysfs, the ledger and the socket.
const granted = cap.NET_ADMIN

// forDHCP is the capability that the setting DHCP keeps beside it: DHCP servers answer to UDP port 67. It is in an engine's default set.
const forDHCP = cap.NET_BIND_SERVICE

// capabilitySet returns the capabilities that the process keeps.
func (c config) capabilitySet() []cap.Value {
	if c.dhcp {
		return []cap.Value{granted, forDHCP}
	}
	return []cap.Value{granted}
}

// setNoNewPrivs is PR_SET_NO_NEW_PRIVS of prctl(2).
const setNoNewPrivs = 38

// dropPrivileges drops all capabilities of all threads except keep, for good. An engine also gives a managed plugin its whole default
// set (14 capabilities, among them those to read any file, to send raw frames and to make device nodes); a process started by root
// has all of them. It also sets the umask, so that files are created readable by their owner alone.
func dropPrivileges(keep []cap.Value) error {
	syscall.Umask(0o077)
	before := cap.GetProc()
	if _, err := cap.Prctlw(setNoNewPrivs, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("privileges: forbid new ones: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("privileges: empty the ambient set: %w", err)
	}
	if err := dropBoundingSet(before, keep); err != nil {
		return err
	}
	after := cap.NewSet()
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		for _, c := range keep {
			has, err := before.GetFlag(cap.Permitted, c)
			if err == nil {
				err = after.SetFlag(flag, has, c)
			}
			if err != nil {
				return fmt.Errorf("privileges: %w", err)
			}
		}
	}
	if err := after.SetProc(); err != nil {
		return fmt.Errorf("privileges: keep %s alone: %w", keep, err)
	}
	return nil
}

// dropBoundingSet drops all capabilities except keep from the bounding set. A process without CAP_SETPCAP may not do that, and need not:
// with no_new_privs it cannot gain capabilities.
func dropBoundingSet(before *cap.Set, keep []cap.Value) error {
	if may, err := before.GetFlag(cap.Effective, cap.SETPCAP); err != nil || !may {
		return err
	}
	for c := range cap.MaxBits() {
		if slices.Contains(keep, c) {
			continue
		}
		if err := cap.DropBound(c); err != nil {
			return fmt.Errorf("privileges: drop %s: %w", c, err)
		}
	}
	return nil
}
