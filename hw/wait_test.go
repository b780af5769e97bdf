package hw

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimeoutIsNoFault: a time-out is the fault of a device only if the device was waited for.
func TestTimeoutIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := wait(t.Context(), time.Second, func() (bool, error) { return false, nil })
		if !timedOut(err) || errors.Is(err, ErrDeviceFault) {
			t.Errorf("a wait that timed out returned %v", err)
		}
		if err := faultIfTimedOut(err); !errors.Is(err, ErrDeviceFault) || timedOut(err) {
			t.Errorf("the time-out of a wait for a device became %v", err)
		}
	})
	if err := faultIfTimedOut(ErrBusy); !errors.Is(err, ErrBusy) || errors.Is(err, ErrDeviceFault) {
		t.Errorf("a busy device became %v", err)
	}
}
