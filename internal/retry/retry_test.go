package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

var errBusy = errors.New("busy")

func busy(err error) bool { return errors.Is(err, errBusy) }

func TestPoll(t *testing.T) {
	after := func(n int) func() (bool, error) {
		return func() (bool, error) { n--; return n <= 0, nil }
	}
	for _, test := range []struct {
		name  string
		ended bool // the context
		bound time.Duration
		cond  func() (bool, error)
		want  error
		took  time.Duration
	}{
		{"the first look succeeds", false, time.Minute, after(1), nil, 0},
		{"the first look succeeds although ctx has ended", true, time.Minute, after(1), nil, 0},
		{"the third look succeeds", false, time.Minute, after(3), nil, 2 * time.Second},
		{"the condition fails", false, time.Minute, func() (bool, error) { return false, errBusy }, errBusy, 0},
		{"the bound passes", false, 5500 * time.Millisecond, after(100), retry.ErrTimeout, 5500 * time.Millisecond},
		{"ctx has ended", true, time.Minute, after(2), context.Canceled, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.ended {
					cancel()
				}
				start := time.Now()
				if err := retry.Poll(ctx, time.Second, test.bound, test.cond); !errors.Is(err, test.want) {
					t.Errorf("Poll returned %v, want %v", err, test.want)
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("Poll took %v, want %v", took, test.took)
				}
			})
		})
	}
}

func TestBackoff(t *testing.T) {
	b := retry.Backoff{First: time.Minute, Max: time.Hour}
	for failures, want := range map[int]time.Duration{
		-1: 0, 0: 0, 1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1 << 20: time.Hour,
	} {
		if got := b.Delay(failures); got != want {
			t.Errorf("after %d failures the delay is %v, want %v", failures, got, want)
		}
		for range 100 {
			if got := b.Jittered(failures); got < 0 || got > want {
				t.Fatalf("after %d failures the jittered delay is %v, want 0 to %v", failures, got, want)
			}
		}
	}
}

func TestDo(t *testing.T) {
	b := retry.Backoff{First: time.Millisecond, Max: time.Second}
	fails := func(n int, err error) (func() error, *int) {
		calls := new(int)
		return func() error {
			if *calls++; *calls <= n {
				return err
			}
			return nil
		}, calls
	}
	synctest.Test(t, func(t *testing.T) {
		f, calls := fails(5, errBusy)
		if err := retry.Do(t.Context(), b, time.Hour, busy, f); err != nil || *calls != 6 {
			t.Errorf("Do returned %v after %d calls, want nil after 6", err, *calls)
		}
		f, _ = fails(5, errBusy)
		start := time.Now()
		if err := retry.Do(t.Context(), b, 0, busy, f); !errors.Is(err, errBusy) && err != nil {
			t.Errorf("Do returned %v, want errBusy or nil", err)
		}
		if took := time.Since(start); took > b.Max {
			t.Errorf("Do went on for %v after its bound", took)
		}
		final := errors.New("no")
		f, calls = fails(5, final)
		if err := retry.Do(t.Context(), b, time.Hour, busy, f); !errors.Is(err, final) || *calls != 1 {
			t.Errorf("Do returned %v after %d calls, want %v after 1", err, *calls, final)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f, _ = fails(1<<30, errBusy)
		err := retry.Do(ctx, b, time.Hour, busy, f)
		if !errors.Is(err, errBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do returned %v, want an error that matches errBusy and the context's", err)
		}
		if want := "busy (context deadline exceeded)"; err != nil && err.Error() != want {
			t.Errorf("Do returned %q, want %q", err, want)
		}
	})
}

func TestDoGivesUpAfterBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := retry.Do(t.Context(), retry.Backoff{First: time.Second, Max: time.Second}, time.Minute, busy,
			func() error { return errBusy })
		if took := time.Since(start); !errors.Is(err, errBusy) || took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("Do returned %v after %v, want errBusy after a minute", err, took)
		}
	})
}

func TestTimes(t *testing.T) {
	calls := 0
	err := retry.Times(3, busy, func() error { calls++; return errBusy })
	if !errors.Is(err, errBusy) || calls != 3 {
		t.Errorf("Times returned %v after %d calls, want errBusy after 3", err, calls)
	}
	calls = 0
	err = retry.Times(3, busy, func() error {
		if calls++; calls == 2 {
			return nil
		}
		return errBusy
	})
	if err != nil || calls != 2 {
		t.Errorf("Times returned %v after %d calls, want nil after 2", err, calls)
	}
}
