package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	page        = 1000 // records that are asked for at once
	rangeRounds = 5    // how often reading starts over because etcd forgot the revision that it began with
)

// usable answers why the ledger cannot be used now, nil when it can be tried.
func (e *etcd) usable(ctx context.Context, attempt string) error {
	err := ctx.Err()
	if e.closed.Load() {
		err = errClosed
	}
	if err != nil {
		return &etcdError{config: &e.config, attempt: attempt, kind: ErrUnavailable, cause: err}
	}
	return nil
}

// Get implements [Store].
func (e *etcd) Get(ctx context.Context, key string) (KV, error) {
	if err := checkKey(key); err != nil {
		return KV{}, err
	}
	if err := e.usable(ctx, "read"); err != nil {
		return KV{}, err
	}
	t, ctx, cancel := e.trial(ctx, "read")
	defer cancel()
	var found []*mvccpb.KeyValue
	err := t.read(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := e.get(ctx, client, e.record(key))
		if err == nil {
			found = resp.Kvs
		}
		return err
	})
	if err != nil {
		return KV{}, err
	}
	if len(found) == 0 {
		return KV{}, fmt.Errorf("record %s: %w", key, ErrNotFound)
	}
	return e.kv(found[0]), nil
}

// get asks for a key or a range of keys, and looks whether the answer is newer than those before.
func (e *etcd) get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (
	*clientv3.GetResponse, error) {
	before, err := e.before(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := client.Get(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	return resp, e.check(ctx, before, resp.Header.ClusterId, resp.Header.Revision)
}

// kv is a record as callers know it.
func (e *etcd) kv(kv *mvccpb.KeyValue) KV {
	value := kv.Value
	if value == nil {
		value = []byte{}
	}
	return KV{Key: strings.TrimPrefix(string(kv.Key), e.config.Prefix+etcdRecords), Value: value, Rev: kv.ModRevision}
}

// Range implements [Store]. All records are read before fn sees the first: etcd may forget the revision that the reading
// began with, and then it begins again.
func (e *etcd) Range(ctx context.Context, prefix string, fn func(KV) error) error {
	if err := e.usable(ctx, "read"); err != nil {
		return err
	}
	records, err := e.list(ctx, prefix)
	for range rangeRounds {
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		records, err = e.list(ctx, prefix)
	}
	if err != nil {
		return err
	}
	for _, kv := range records {
		if err := ctx.Err(); err != nil {
			return e.usable(ctx, "read")
		}
		if err := fn(e.kv(kv)); err != nil {
			return err
		}
	}
	return nil
}

// list reads all records under prefix, page by page, at the revision of the first page.
func (e *etcd) list(ctx context.Context, prefix string) ([]*mvccpb.KeyValue, error) {
	from := e.record(prefix)
	opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(from)), clientv3.WithLimit(page)}
	var records []*mvccpb.KeyValue
	for {
		t, within, cancel := e.trial(ctx, "read")
		var resp *clientv3.GetResponse
		err := t.read(within, func(ctx context.Context, client *clientv3.Client) (err error) {
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
