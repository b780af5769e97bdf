//go:build kernel

package rtnl_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest/conformance"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// TestMain runs the tests in a process of their own that has private network and mount namespaces, so that they neither
// see nor touch the machine's links. Nothing but a user namespace is needed for that; root needs not even that.
func TestMain(m *testing.M) {
	code, err := 0, error(nil)
	if !sandbox.Inside() {
		code, err = sandbox.RunInside(os.Args[1:], os.Stdout)
	} else if err = mountSys(); err == nil {
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernel tests: private namespaces:", err)
		code = 1
	}
	os.Exit(code)
}

func TestKernelConformance(t *testing.T) {
	conformance.Kernel(t, func(t *testing.T) (hw.Kernel, conformance.Env) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
}

func TestKernelPortVLANsConformance(t *testing.T) {
	conformance.PortVLANs(t, func(t *testing.T) (hw.Kernel, conformance.Env) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
}

func TestKernelNewLinksConformance(t *testing.T) {
	conformance.NewLinks(t, []string{hw.Macvlan}, func(t *testing.T) (hw.Kernel, conformance.Env) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
}

func TestKernelARPConformance(t *testing.T) {
	conformance.ARP(t, func(t *testing.T) (hw.Kernel, conformance.ARPEnv) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
}
