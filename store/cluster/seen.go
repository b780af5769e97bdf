package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
)

// prefixSeen is the prefix of the keys under which the nodes write when they last ran: cluster/seen/ID. The record is "VERSION TIME". It is
// for people: clocks differ, and a node that has not written for long may still run containers. Nothing is freed because of it.
const prefixSeen = "cluster/seen/"

// SeenEvery is how often a node writes that it runs.
const SeenEvery = time.Minute

// See writes that this node runs, at most once every [SeenEvery]. It does nothing before the node is a member: it must not wait for the
// store in the place of a request, nor keep one waiting.
func (m *Member) See(ctx context.Context) error {
	if !m.mu.TryLock() { // a request is using the store; there is a next time
		return nil
	}
	cond, seen := m.cond, m.seen
	m.mu.Unlock()
	if cond.Key == "" || !seen.IsZero() && time.Since(seen) < SeenEvery {
		return nil
	}
	now := time.Now()
	key := prefixSeen + strings.TrimPrefix(cond.Key, prefixMember)
	value := fmt.Appendf(nil, "%d %s", recordVersion, now.UTC().Format(time.RFC3339))
	// If the condition does not hold, the node's next request finds out why.
	if _, err := m.shared.Txn(ctx, []store.Cond{cond}, []store.Op{store.Put(key, value)}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = now
	return nil
}

// seenTimes returns when each node wrote that it ran, by ID.
func seenTimes(ctx context.Context, shared store.Store) (map[string]time.Time, error) {
	all := map[string]time.Time{}
	err := shared.Range(ctx, prefixSeen, func(kv store.KV) error {
		if text, err := versioned(kv); err == nil {
			at, _, _ := strings.Cut(text, " ")
			all[strings.TrimPrefix(kv.Key, prefixSeen)], _ = time.Parse(time.RFC3339, at) // the zero time if it cannot be read
		}
		return nil
	})
	return all, err
}
