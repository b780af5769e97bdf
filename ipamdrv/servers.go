package ipamdrv

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// serversEvery is how often a node asks the servers of a shared store for their status.
const serversEvery = 5 * time.Minute

// serverWatch is what [Driver.Maintain] knows of the servers of a shared store.
type serverWatch struct {
	asked    time.Time
	problems map[string]string // kind of each one's problem, by endpoint
}

// watchServers warns once of a database that is near its quota and of each alarm, and says when that is over. It does nothing while the
// circuit breaker is open.
func (d *Driver) watchServers(ctx context.Context) {
	w := &d.servers
	if d.pools.breaker.Unavailable() != nil || time.Since(w.asked) < serversEvery {
		return
	}
	w.asked = time.Now()
	problems := map[string]string{}
	for _, s := range store.Servers(ctx, d.pools.ledger.Store) {
		if s.Err != nil {
			problems[s.Endpoint] = w.problems[s.Endpoint] // not known to be over
			continue
		}
		kind, text := s.Problem()
		problems[s.Endpoint] = kind
		switch before := w.problems[s.Endpoint]; {
		case kind == before:
		case kind == "":
			d.log.Info("the shared store has space again", zap.String("server", s.Endpoint))
		default:
			d.log.Warn("the shared store needs an operator", zap.String("problem", text))
		}
	}
	w.problems = problems
}
