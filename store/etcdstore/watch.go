package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// readDelay is the longest time until a read in the background begins. Nodes that start at once, after a power failure, join their pools before
// most of them begin to read.
const readDelay = 2 * time.Second

// Pages implements [store.Watcher]. It begins after a random delay, and gives way to other requests if etcd is busy.
func (e *etcd) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	p := e.keys.pager(prefix)
	var pace retry.Pace
	if retry.Sleep(ctx, rand.N(readDelay)) != nil {
		return e.usable(ctx, "read")
	}
	for !p.done {
		began := time.Now()
		resp, err := e.pageUntil(ctx, p)
		if err != nil {
			return err
		}
		took := time.Since(began)
		page := make([]store.KV, 0, len(resp.Kvs))
		for _, kv := range resp.Kvs {
			page = append(page, e.keys.kv(kv))
		}
		if err := fn(resp.Header.Revision, page); err != nil {
			return err
		}
		if !p.done && retry.Sleep(ctx, pace.Next(took)) != nil {
			return e.usable(ctx, "read")
		}
	}
	return nil
}

// watchBackoff is the pause between two attempts to read a page, or to watch, while etcd is away.
var watchBackoff = retry.Backoff{First: retryPause, Max: attemptMax}

// pageUntil reads a page, and retries until ctx ends or the error is one that does not go away by itself.
func (e *etcd) pageUntil(ctx context.Context, p *pager) (resp *clientv3.GetResponse, err error) {
	for n := 0; ; n++ {
		if err := e.usable(ctx, "read"); err != nil {
			return nil, err
		}
		r, within, cancel := e.retrier(ctx, "read")
		resp, err = e.page(within, r, p)
		cancel()
		if err == nil || errors.Is(err, store.ErrRolledBack) || retry.Sleep(ctx, watchBackoff.Jittered(n+1)) != nil {
			return resp, err
		}
	}
}

// Watch implements [store.Watcher]. The etcd client goes on by itself after a broken connection, from the revision that it has told last.
func (e *etcd) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	for n := 0; ; n++ {
		if err := e.usable(ctx, "watch"); err != nil {
			return err
		}
		told := rev
		err := e.watch(ctx, prefix, &rev, fn)
		if rev > told {
			n = 0
		}
		var caller *callerError
		switch {
		case errors.As(err, &caller):
			return caller.error
		case errors.Is(err, store.ErrCompacted), errors.Is(err, store.ErrRolledBack):
			return err
		}
		if retry.Sleep(ctx, watchBackoff.Jittered(n+1)) != nil {
			return e.usable(ctx, "watch")
		}
	}
}

// callerError is an error of the function that Watch was given.
type callerError struct{ error }

// watch watches with one client until that fails. rev is the revision that was told last, 0 for none.
func (e *etcd) watch(ctx context.Context, prefix string, rev *int64, fn func(store.Changes) error) error {
	within, cancel := context.WithTimeout(ctx, callTimeout)
	client, err := e.conn.get(within)
	cancel()
	if err != nil {
		return err
	}
	ctx, cancel = context.WithCancel(clientv3.WithRequireLeader(ctx)) // a member without a leader tells nothing
	defer cancel()
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify()}
	if *rev > 0 {
		opts = append(opts, clientv3.WithRev(*rev+1))
	}
	for resp := range client.Watch(ctx, e.keys.record(prefix), opts...) {
		err := e.tell(resp, rev, fn)
		if err != nil {
			e.conn.renew(client, err)
			return err
		}
	}
	return errors.New("the watch has ended")
}

// tell passes one message of a watch on.
func (e *etcd) tell(resp clientv3.WatchResponse, rev *int64, fn func(store.Changes) error) error {
	if err := resp.Err(); errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("watch from revision %d: %w", *rev+1, store.ErrCompacted)
	} else if err != nil {
		return err
	}
	if before, err := e.before(); err != nil || before.cluster != 0 && resp.Header.ClusterId != before.cluster {
		return errors.Join(err, store.ErrRolledBack)
	}
	if resp.Created && *rev > 0 {
		return nil // it goes on where it was
	}
	changes := store.Changes{Rev: resp.Header.Revision}
	for _, event := range resp.Events {
		changes.Events = append(changes.Events, store.Event{KV: e.keys.kv(event.Kv), Deleted: event.Type == mvccpb.DELETE})
		changes.Rev = event.Kv.ModRevision // the header has that of the member, which may be ahead of what it has told
	}
	if err := fn(changes); err != nil {
		return &callerError{err}
	}
	*rev = max(*rev, changes.Rev)
	return nil
}
