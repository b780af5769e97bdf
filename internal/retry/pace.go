package retry

import (
	"math/rand/v2"
	"time"
)

const (
	paceSlack  = 100 * time.Millisecond // by how much a part may take longer than on a server without a queue
	paceFactor = 8                      // of the pause, to what a part took longer than that
)

// A Pace paces a long read in the background, part by part, to give way to requests and to the reads of others. A reader of a server that is
// not busy does not pause. Of many that read at once most are in a pause, the more of them the longer the queue is, and the rest keep the
// server as busy as all would; but a request finds a short queue, however many read and however long each part takes. A reader goes on for at
// least a ninth of the time. The zero value is ready for use.
type Pace struct {
	least time.Duration // what a part has taken at least: it shows how far the server is, and how fast
}

// Next returns how long to pause after a part that took this long. It is random, so that readers do not stay together.
func (p *Pace) Next(took time.Duration) time.Duration {
	if p.least == 0 || took < p.least {
		p.least = took
	}
	pause := paceFactor * max(0, took-p.least-paceSlack)
	return pause/2 + rand.N(pause+1)
}
