package dockertest

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAwait: what is waited for has half of the time for itself, and is looked at once more when the time is up.
func TestAwait(t *testing.T) {
	for _, c := range []struct {
		name  string
		comes int // at which look; 0 for never
		want  string
		took  time.Duration
	}{
		{"at once", 1, "", time.Second},
		{"at the third look", 3, "", 5 * time.Second},
		{"just in time", 6, "", 11 * time.Second},
		{"never", 0, "after 10s: not yet", 11 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks, began := 0, time.Now()
				err := Await(10*time.Second, func() string {
					time.Sleep(time.Second)
					if looks++; looks == c.comes {
						return ""
					}
					return "not yet"
				})
				if got := time.Since(began); got != c.took {
					t.Errorf("it took %s, want %s", got, c.took)
				}
				if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
					t.Errorf("error %v, want %q", err, c.want)
				}
			})
		})
	}
}
