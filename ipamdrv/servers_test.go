package ipamdrv_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// servedStore is a shared store with servers whose status a test sets.
type servedStore struct {
	*store.Memory
	server atomic.Pointer[store.ServerStatus]
}

// Servers implements [store.Served].
func (s *servedStore) Servers(context.Context) []store.ServerStatus {
	return []store.ServerStatus{*s.server.Load()}
}

// TestServersThatNeedAnOperator: the log has one line when a server is near its quota, one when it has an alarm, and one when that is over.
// A server that does not answer changes nothing.
func TestServersThatNeedAnOperator(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		shared := &servedStore{Memory: under}
		ok := store.ServerStatus{Endpoint: "10.0.0.1:2379", Size: 7 << 30, Quota: 10 << 30}
		near, full, silent := ok, ok, ok
		near.Size, full.Size, full.Alarms, silent.Err = 8<<30, 10<<30, []string{"NOSPACE"}, errors.New("no answer in time")
		shared.server.Store(&ok)
		var net networkDriver
		_, logs := nodeWithGC(t, shared, &net)
		for _, step := range []struct {
			is         store.ServerStatus
			near, full int
		}{{ok, 0, 0}, {near, 1, 0}, {near, 1, 0}, {silent, 1, 0}, {near, 1, 0}, {full, 1, 1}, {full, 1, 1}, {ok, 1, 1}, {full, 1, 2}} {
			shared.server.Store(&step.is)
			wait(6 * time.Minute)
			problems := map[string]int{}
			for _, e := range logs.FilterMessage("the shared store needs an operator").All() {
				text := e.ContextMap()["problem"].(string)
				for _, kind := range []string{"at the quota it refuses writes", "has the alarm NOSPACE"} {
					if strings.Contains(text, kind) {
						problems[kind]++
					}
				}
			}
			if problems["at the quota it refuses writes"] != step.near || problems["has the alarm NOSPACE"] != step.full {
				t.Errorf("%+v: warned %v", step, problems)
			}
		}
	})
}
