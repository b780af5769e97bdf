package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

const (
	pageSize   = 1000 // records in one request
	rangeTries = 6    // reads of a range from its start, if etcd has compacted the revision of the first page
)

// Get implements [store.Store].
func (e *etcd) Get(ctx context.Context, key string) (store.KV, error) {
	if err := store.CheckKey(key); err != nil {
		return store.KV{}, err
	}
	if err := e.usable(ctx, "read"); err != nil {
		return store.KV{}, err
	}
	r, ctx, cancel := e.retrier(ctx, "read")
	defer cancel()
	var found []*mvccpb.KeyValue
	err := r.read(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := e.get(ctx, client, e.keys.record(key))
		if err == nil {
			found = resp.Kvs
		}
		return err
	})
	if err != nil {
		return store.KV{}, err
	}
	if len(found) == 0 {
		return store.KV{}, fmt.Errorf("record %s: %w", key, store.ErrNotFound)
	}
	return e.keys.kv(found[0]), nil
}

// get reads a key or a range of keys, and checks the answer for a rollback.
func (e *etcd) get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (
	*clientv3.GetResponse, error) {
	before, err := e.before()
	if err != nil {
		return nil, err
	}
	resp, err := client.Get(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	return resp, e.check(before, resp.Header.ClusterId, resp.Header.Revision)
}

// Range implements [store.Store]. It reads all records before fn sees the first: etcd may compact the revision of the first page, and then
// the read starts again.
func (e *etcd) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if err := e.usable(ctx, "read"); err != nil {
		return err
	}
	var records []*mvccpb.KeyValue
	compacted := func(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }
	err := retry.Times(rangeTries, compacted, func() (err error) {
		records, err = e.list(ctx, prefix)
		return err
	})
	if err != nil {
		return err
	}
	for _, kv := range records {
		if ctx.Err() != nil {
			return e.usable(ctx, "read")
		}
		if err := fn(e.keys.kv(kv)); err != nil {
			return err
		}
	}
	return nil
}

// list reads all records under prefix, page by page, at the revision of the first page.
func (e *etcd) list(ctx context.Context, prefix string) ([]*mvccpb.KeyValue, error) {
	from := e.keys.record(prefix)
	opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(from)), clientv3.WithLimit(pageSize)}
	var records []*mvccpb.KeyValue
	for {
		r, within, cancel := e.retrier(ctx, "read")
		var resp *clientv3.GetResponse
		err := r.read(within, func(ctx context.Context, client *clientv3.Client) (err error) {
			resp, err = e.get(ctx, client, from, opts...)
			return err
		})
		cancel()
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			opts = append(opts, clientv3.WithRev(resp.Header.Revision))
		}
		records = append(records, resp.Kvs...)
		if !resp.More {
			return records, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
