package retry

import (
	"math/rand/v2"
	"time"
)

const (
	paceSlack  = 100 * time.Millisecond // a part that took no longer has no pause after it
	paceFactor = 4                      // of the pause, to what the part took longer
	paceMax    = 500 * time.Millisecond
)

// Pace returns how long a long read in the background pauses after a part of it that took this long, to give way to requests and to the
// reads of others. A reader of a server that is not busy does not pause. Of many that read at once most are in a pause, and the rest keep the
// server as busy as all would; but a request finds a shorter queue. The pause is random, so that readers do not stay together.
func Pace(took time.Duration) time.Duration {
	pause := min(paceFactor*max(0, took-paceSlack), paceMax)
	return pause/2 + rand.N(pause+1)
}
