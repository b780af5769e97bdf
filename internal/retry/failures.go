package retry

import "time"

// Failures counts how often in a row an operation has failed that is tried again later, not in a loop. The zero value is that of
// an operation that was not tried, or has succeeded.
type Failures struct {
	Count int
	Last  time.Time // when it failed last
}

// Add returns the failures with one more, at now.
func (f Failures) Add(now time.Time) Failures { return Failures{f.Count + 1, now} }

// Wait returns how long to wait from now on until the operation is due again; 0 if it is due.
func (f Failures) Wait(b Backoff, now time.Time) time.Duration {
	if f.Count == 0 {
		return 0
	}
	return max(0, f.Last.Add(b.Delay(f.Count)).Sub(now))
}
