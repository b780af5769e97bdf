package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// past is the newest state that etcd has shown. When it shows an older one, it was restored from a backup, and what
// looks free in it may be in use. That it did is not forgotten: its revision grows again, and shows nothing any more once it
// has grown past what was seen.
type past struct {
	cluster  uint64
	revision int64
}

// Past implements [Rememberer]. The third number is there once an older state was shown.
func (e *etcd) Past() []byte {
	if back := e.back.Load(); back != nil {
		return fmt.Appendf(nil, "%x %d %d", back.before.cluster, back.before.revision, back.now.revision)
	}
	e.turn <- struct{}{} // nobody has it for longer than an attempt lasts
	defer func() { <-e.turn }()
	if e.seen.cluster == 0 {
		return nil
	}
	return fmt.Appendf(nil, "%x %d", e.seen.cluster, e.seen.revision)
}

// Recall implements [Rememberer].
func (e *etcd) Recall(raw []byte) error {
	var seen past
	var now int64
	n, err := fmt.Sscanf(string(raw), "%x %d %d", &seen.cluster, &seen.revision, &now)
	if n < 2 {
		return fmt.Errorf("the state of etcd that was seen last, %.40q: %w: %w", raw, ErrCorrupt, err)
	}
	if n == 3 {
		e.back.Store(&etcdPast{before: seen, now: past{seen.cluster, now}})
	}
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	e.seen = seen
	return nil
}

// check compares what an answer says of etcd's state with what was seen before it was asked. Another cluster stays another
// one, so that its answers are refused one by one: with the right one at its place all is well again.
func (e *etcd) check(ctx context.Context, before past, cluster uint64, revision int64) error {
	if before.cluster != 0 && (cluster != before.cluster || revision < before.revision) {
		back := &etcdPast{before: before, now: past{cluster, revision}}
		if cluster == before.cluster {
			e.back.CompareAndSwap(nil, back)
		}
		return back
	}
	if err := e.take(ctx); err != nil {
		return nil // the answer is good; only a later one is compared with less
	}
	defer func() { <-e.turn }()
	if e.seen.cluster == 0 || e.seen.cluster == cluster {
		e.seen = past{cluster, max(revision, e.seen.revision)}
	}
	return nil
}

// before is what was seen so far. The error is that it was more than etcd has shown since.
func (e *etcd) before(ctx context.Context) (past, error) {
	if back := e.back.Load(); back != nil {
		return past{}, back
	}
	if err := e.take(ctx); err != nil {
		return past{}, err
	}
	defer func() { <-e.turn }()
	return e.seen, nil
}

// look reads something before a write when connections have begun or ended since it did so last. The answer to a write shows
// an older state too late, when it was made; but nobody restores an etcd without ending the connections to it.
func (e *etcd) look(ctx context.Context, t *trial) error {
	now := e.conns.Load()
	if e.looked.Load() == now {
		return nil
	}
	_, err := t.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := e.get(ctx, client, e.config.Prefix+etcdSchema)
		return err
	})
	if err == nil {
		e.looked.Store(now)
	}
	return err
}

// etcdPast is the error of an answer from an older state. It matches [ErrPast].
type etcdPast struct{ before, now past }

// Error says what was seen.
func (e *etcdPast) Error() string {
	if e.now.cluster != e.before.cluster {
		return fmt.Sprintf("this is another cluster, %x, than the one before, %x", e.now.cluster, e.before.cluster)
	}
	return fmt.Sprintf("its state went back from revision %d to %d", e.before.revision, e.now.revision)
}

// Is makes it match.
func (e *etcdPast) Is(target error) bool { return target == ErrPast }
