//go:build kernel || lab

package hw

import "testing"

// RunningKernel is the kernel that Open takes when it is given none.
func RunningKernel(t *testing.T, sys string) (Kernel, IPKernel) {
	t.Helper()
	k := RunningMachine(t, sys)
	return k, k
}

// RunningMachine is RunningKernel as one.
func RunningMachine(t *testing.T, sys string) Machine {
	t.Helper()
	k, err := openKernel(sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}
