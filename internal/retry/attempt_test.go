package retry_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

func TestAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.Backoff{First: time.Minute, Max: 5 * time.Minute}
		var a retry.Attempt
		if got := a.Wait(b); got != 0 {
			t.Errorf("wait is %v before the first attempt", got)
		}
		for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
			a = a.Failed()
			if got := a.Wait(b); got != want {
				t.Errorf("wait is %v after %d failures, want %v", got, i+1, want)
			}
			time.Sleep(want - time.Second)
			if got := a.Wait(b); got != time.Second {
				t.Errorf("wait is %v a second before the operation is due", got)
			}
			time.Sleep(2 * time.Second)
			if got := a.Wait(b); got != 0 {
				t.Errorf("wait is %v when the operation is due", got)
			}
		}
	})
}
