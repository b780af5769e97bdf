package retry

import "time"

// Attempt is the last attempt at an operation that is tried again later, not in a loop. The zero value is that of an operation that
// was not tried yet, or has succeeded.
type Attempt struct {
	Failures int       // in a row
	At       time.Time // of the last failure
}

// Failed returns the attempt after one that has failed now.
func (a Attempt) Failed() Attempt { return Attempt{a.Failures + 1, time.Now()} }

// Wait returns how long to wait from now on until the operation is due again; 0 if it is due.
func (a Attempt) Wait(b Backoff) time.Duration {
	if a.Failures == 0 {
		return 0
	}
	return max(0, time.Until(a.At.Add(b.Delay(a.Failures))))
}
