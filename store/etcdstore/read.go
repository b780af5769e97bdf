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
	pageSize   = 2000 // records in one request
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
	var records []*mvccpb.KeyValue
	var at []clientv3.OpOption
	p := e.keys.pager(prefix)
	for !p.done {
		r, within, cancel := e.retrier(ctx, "read")
		resp, err := e.page(within, r, p, at...)
		cancel()
		if err != nil {
			return nil, err
		}
		if at == nil {
			at = []clientv3.OpOption{clientv3.WithRev(resp.Header.Revision)}
		}
		records = append(records, resp.Kvs...)
	}
	return records, nil
}

// page reads one page, and moves the pager on.
func (e *etcd) page(ctx context.Context, r *retrier, p *pager, opts ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	opts = append(opts, clientv3.WithRange(p.end()), clientv3.WithLimit(pageSize))
	err = r.read(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = e.get(ctx, client, p.from, opts...)
		return err
	})
	if err == nil {
		p.advance(resp)
	}
	return resp, err
}

// A pager gives each page of a large range an end of its own, not far from its start. For every page etcd counts the keys up to the end that
// it is given, whatever the limit (etcd 3.6, server/storage/mvcc/index.go, treeIndex.Revisions), and no key is written meanwhile: with the end
// of the whole range the cost of reading all pages grows with the square of their number, and nodes that begin to read a large pool at once keep
// all writes waiting.
type pager struct {
	from, last string // the rest of the range
	base       int    // length of the prefix that all keys have
	cut        int    // the end of the next page differs from from in this character; base for no end of its own
	width      byte   // by how much it differs; 0 is 1
	top        byte   // the highest character that a key has had after the prefix
	group      int    // records read of the keys up to this end, or to one before it
	done       bool
}

// pager returns a pager for the records under prefix.
func (k keyspace) pager(prefix string) *pager {
	from := k.record(prefix)
	return &pager{from: from, last: clientv3.GetPrefixRangeEnd(from), base: len(from), cut: len(from)}
}

// end returns the end of the next page.
func (p *pager) end() string {
	if p.cut <= p.base || p.cut > len(p.from) {
		return p.last
	}
	next := min(int(p.from[p.cut-1])+int(max(p.width, 1)), 0xff)
	return min(p.last, p.from[:p.cut-1]+string([]byte{byte(next)}))
}

// advance moves the pager on, after the page that it was read with. If etcd had to count far more keys than it returned, the next end is that
// of the keys which are as alike as those of the page. If it returned all up to the end, the next one is as far from there, or farther if there
// was little before it: first up to the highest character that keys have, then by a character less that they have in common. So the next keys
// are found without counting many of those behind them.
func (p *pager) advance(resp *clientv3.GetResponse) {
	p.group += len(resp.Kvs)
	for _, kv := range resp.Kvs {
		for _, c := range kv.Key[p.base:] {
			p.top = max(p.top, c)
		}
	}
	switch end := p.end(); {
	case resp.More:
		half, last := string(resp.Kvs[len(resp.Kvs)/2].Key), string(resp.Kvs[len(resp.Kvs)-1].Key)
		p.from, p.width = last+"\x00", 0
		if resp.Count > 4*pageSize {
			p.cut, p.group = max(p.cut+1, p.base+1, alike(half, last)), 0
		}
	case end == p.last:
		p.done = true
	default:
		p.from = end
		switch beyond := p.from[p.cut-1] > p.top; {
		case p.group == 0 && !beyond:
			p.width = min(2*max(p.width, 1), p.top-p.from[p.cut-1]+1)
		case p.group < pageSize/4 || beyond:
			p.cut, p.width = p.cut-1, 0
		default:
			p.width = 0
		}
		p.group = 0
	}
}

// alike returns how many characters at their beginning two texts have in common.
func alike(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
