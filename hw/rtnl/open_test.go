//go:build kernel || lab

package rtnl_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
)

// openKernel opens the running kernel for the time of a test.
func openKernel(t testing.TB, sys, irq string) *rtnl.Kernel {
	t.Helper()
	k, err := rtnl.Open(sys, irq)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// openHost opens the machine that the test runs on.
func openHost(t testing.TB) *hw.Host {
	t.Helper()
	k := openKernel(t, sys, "/proc/irq")
	h, err := hw.Open(hw.Config{Sys: k.Sysfs(), Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
