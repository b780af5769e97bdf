package retry_test

import (
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

func TestFailures(t *testing.T) {
	t.Parallel()
	b := retry.Backoff{First: time.Minute, Max: 5 * time.Minute}
	now := time.Now()
	var f retry.Failures
	if got := f.Wait(b, now); got != 0 {
		t.Errorf("wait is %v before the first try", got)
	}
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		f = f.Add(now)
		if got := f.Wait(b, now); got != want {
			t.Errorf("wait is %v after %d failures, want %v", got, i+1, want)
		}
		if got := f.Wait(b, now.Add(want-time.Second)); got != time.Second {
			t.Errorf("wait is %v a second before the operation is due", got)
		}
		now = now.Add(want + time.Second)
		if got := f.Wait(b, now); got != 0 {
			t.Errorf("wait is %v when the operation is due", got)
		}
	}
}
