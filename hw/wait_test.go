package hw

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimeoutIsNoFault: only where a device is waited for is a time-out its fault.
func TestTimeoutIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := wait(t.Context(), time.Second, func() (bool, error) { return false, nil })
		if !timedOut(err) || errors.Is(err, ErrDeviceFault) {
			t.Errorf("a wait that timed out returned %v", err)
		}
		if err := faultIfTimedOut(err); !errors.Is(err, ErrDeviceFault) || timedOut(err) {
			t.Errorf("a device that was waited for in vain is %v", err)
		}
	})
	if err := faultIfTimedOut(ErrBusy); !errors.Is(err, ErrBusy) || errors.Is(err, ErrDeviceFault) {
		t.Errorf("a busy device became %v", err)
	}
}
