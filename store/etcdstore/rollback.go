package etcdstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/store"
)

// A watermark is the newest state that etcd has shown. An etcd that shows an older state was restored from a backup, and an address that
// looks free in it may be in use. The store remembers that: the revision grows again, and is of no use once it has passed the watermark.
type watermark struct {
	cluster  uint64
	revision int64
}

// rollbackGuard compares the state in each answer with the newest one before.
type rollbackGuard struct {
	rollback atomic.Pointer[rolledBack] // not nil once etcd has shown an older state

	mu   sync.Mutex
	seen watermark // guarded by mu
}

// Watermark implements [store.RollbackDetector]: "CLUSTER REVISION", and the older revision once etcd has shown one.
func (g *rollbackGuard) Watermark() []byte {
	if rb := g.rollback.Load(); rb != nil {
		return fmt.Appendf(nil, "%x %d %d", rb.before.cluster, rb.before.revision, rb.now.revision)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen.cluster == 0 {
		return nil
	}
	return fmt.Appendf(nil, "%x %d", g.seen.cluster, g.seen.revision)
}

// SetWatermark implements [store.RollbackDetector].
func (g *rollbackGuard) SetWatermark(raw []byte) error {
	var seen watermark
	var now int64
	n, err := fmt.Sscanf(string(raw), "%x %d %d", &seen.cluster, &seen.revision, &now)
	if n < 2 {
		return fmt.Errorf("the state of etcd that was seen last, %.40q: %w: %w", raw, store.ErrCorrupt, err)
	}
	if n == 3 {
		g.rollback.Store(&rolledBack{before: seen, now: watermark{seen.cluster, now}})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = seen
	return nil
}

// before returns the watermark. The error matches [store.ErrRolledBack] if etcd has shown an older state.
func (g *rollbackGuard) before() (watermark, error) {
	if rb := g.rollback.Load(); rb != nil {
		return watermark{}, rb
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen, nil
}

// check compares the state in an answer with the watermark before the request. It refuses the answers of another cluster one by one, and
// remembers nothing: with the right cluster in its place the store works again.
func (g *rollbackGuard) check(before watermark, cluster uint64, revision int64) error {
	if before.cluster != 0 && (cluster != before.cluster || revision < before.revision) {
		rb := &rolledBack{before: before, now: watermark{cluster, revision}}
		if cluster == before.cluster {
			g.rollback.CompareAndSwap(nil, rb)
		}
		return rb
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen.cluster == 0 || g.seen.cluster == cluster {
		g.seen = watermark{cluster, max(revision, g.seen.revision)}
	}
	return nil
}

// checkBeforeWrite reads a key before a write if connections were opened or closed since it last did. The answer to a write shows an older
// state too late, after the write; but a restore of etcd always closes the connections to it.
func (e *etcd) checkBeforeWrite(ctx context.Context, r *retrier) error {
	now := e.conn.events.Load()
	if e.checkedConn.Load() == now {
		return nil
	}
	_, err := r.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := e.get(ctx, client, e.keys.schema())
		return err
	})
	if err == nil {
		e.checkedConn.Store(now)
	}
	return err
}

// rolledBack is the error of an answer that shows an older state. It matches [store.ErrRolledBack].
type rolledBack struct{ before, now watermark }

// Error says which states etcd has shown.
func (e *rolledBack) Error() string {
	if e.now.cluster != e.before.cluster {
		return fmt.Sprintf("this is another cluster, %x, than the one before, %x", e.now.cluster, e.before.cluster)
	}
	return fmt.Sprintf("its state went back from revision %d to %d", e.before.revision, e.now.revision)
}

// Is makes the error match [store.ErrRolledBack].
func (e *rolledBack) Is(target error) bool { return target == store.ErrRolledBack }
