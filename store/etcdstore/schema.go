package etcdstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/store"
)

// recheckAfter is how old what a node knows of the schema may be. Within this time after an operator has raised it, older nodes are refused.
const recheckAfter = time.Minute

// schema is what a connection knows of the schema in etcd: the version that a node must know to use it. A node that does not know it is
// refused at each call. It is written with the first connection to an empty etcd, and then raised by operators, once all nodes know a newer
// one.
type schema struct {
	key     string
	version int       // 0 before it was read
	read    time.Time // when the version was read
}

// check reads the schema, and writes the newest if there is none. It writes only then: etcd refuses what might write while its quota is used up.
func (s *schema) check(ctx context.Context, client *clientv3.Client) error {
	resp, err := client.Get(ctx, s.key)
	if err != nil {
		return err
	}
	kvs := resp.Kvs
	if len(kvs) == 0 {
		if kvs, err = s.write(ctx, client); err != nil {
			return err
		}
	}
	version := store.SchemaNewest
	if len(kvs) > 0 {
		if version, err = s.parse(string(kvs[0].Value)); err != nil {
			return err
		}
	}
	s.version, s.read = version, time.Now()
	return nil
}

// write writes the newest schema, and returns the one that another node has written meanwhile.
func (s *schema) write(ctx context.Context, client *clientv3.Client) ([]*mvccpb.KeyValue, error) {
	resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(s.key), "=", 0)).
		Then(clientv3.OpPut(s.key, strconv.Itoa(store.SchemaNewest))).Else(clientv3.OpGet(s.key)).Commit()
	if err != nil || resp.Succeeded {
		return nil, err
	}
	return resp.Responses[0].GetResponseRange().Kvs, nil
}

// recheck is check if what is known is too old.
func (s *schema) recheck(ctx context.Context, client *clientv3.Client) error {
	if time.Since(s.read) < recheckAfter {
		return nil
	}
	return s.check(ctx, client)
}

// parse returns the version of a schema that this code knows.
func (s *schema) parse(text string) (int, error) {
	version, err := strconv.Atoi(text)
	switch {
	case err != nil || version < store.SchemaOldest:
		return 0, fmt.Errorf("%s: %w: schema version %.20q", s.key, store.ErrCorrupt, text)
	case version > store.SchemaNewest:
		return 0, fmt.Errorf("%w: it has schema %d, this version knows %d", store.ErrNewer, version, store.SchemaNewest)
	}
	return version, nil
}

// Schema implements [store.Gate].
func (e *etcd) Schema(ctx context.Context) (version int, err error) {
	if err := e.usable(ctx, "read"); err != nil {
		return 0, err
	}
	r, ctx, cancel := e.retrier(ctx, "read")
	defer cancel()
	err = r.read(ctx, func(ctx context.Context, _ *clientv3.Client) (err error) { // to connect is to read it
		version, err = e.conn.schemaVersion(ctx)
		return err
	})
	return version, err
}

// schemaVersion returns the schema as it was read last.
func (c *connection) schemaVersion(ctx context.Context) (int, error) {
	if err := c.mu.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer c.mu.Release(1)
	return c.schema.version, nil
}

// RaiseSchema implements [store.Gate].
func (e *etcd) RaiseSchema(ctx context.Context) error {
	if err := e.usable(ctx, "write"); err != nil {
		return err
	}
	r, ctx, cancel := e.retrier(ctx, "write")
	defer cancel()
	return r.read(ctx, func(ctx context.Context, client *clientv3.Client) error { // it can be repeated
		resp, err := client.Get(ctx, e.keys.schema())
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		if _, err := e.conn.schema.parse(string(resp.Kvs[0].Value)); err != nil {
			return err
		}
		_, err = client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(e.keys.schema()), "=", resp.Kvs[0].ModRevision)).
			Then(clientv3.OpPut(e.keys.schema(), strconv.Itoa(store.SchemaNewest))).Commit()
		return err
	})
}
