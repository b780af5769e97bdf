package netdrv

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// timings remember of each endpoint, from when it is created until it is joined, what the log is to say then: one line per container
// that is attached. They are not part of the ledger; a process that was restarted in between has a shorter line.
type timings struct {
	mu    sync.Mutex
	known map[string]timing // by ID of the endpoint; guarded by mu
}

// A timing is how long the steps of an endpoint's creation took, and for which container it was created.
type timing struct {
	container    string // "" if the engine did not tell it
	claim, setup time.Duration
}

// timingsMax is how many endpoints may wait to be joined. Those whose start has failed are never joined.
const timingsMax = 1024

// put remembers the timing of an endpoint.
func (t *timings) put(endpoint string, of timing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= timingsMax {
		t.known = map[string]timing{}
	}
	t.known[endpoint] = of
}

// take forgets the timing of an endpoint, and returns it.
func (t *timings) take(endpoint string) timing {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.known[endpoint]
	delete(t.known, endpoint)
	return of
}

// logAttached logs that an endpoint has its device. mac is that of the device; start is when Join began.
func (x *endpoints) logAttached(a *alloc.Allocation, e ledger.Endpoint, mac hw.MAC, start time.Time) {
	of := x.timings.take(e.ID)
	var fields []zap.Field
	if of.container != "" {
		fields = append(fields, zap.String("container", of.container))
	}
	fields = append(append(fields, a.Fields()...), zap.String("mac", string(mac)), zap.Strings("addresses", e.Addrs))
	if a.Representor != nil {
		fields = append(fields, zap.String("representor", a.Representor.Name))
	}
	if of.claim+of.setup > 0 {
		fields = append(fields, zap.Duration("claim", of.claim), zap.Duration("setup", of.setup))
	}
	x.log.Info("attached", append(fields, zap.Duration("join", time.Since(start)), zap.String(admin.EventKey, admin.EventAttach))...)
}
