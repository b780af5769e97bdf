//go:build kernel || lab

package hw

import "testing"

// RunningKernel is the kernel that Open takes when it is given none.
func RunningKernel(t testing.TB, sys, irq string) Machine {
	t.Helper()
	k, err := openKernel(sys, irq)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}
