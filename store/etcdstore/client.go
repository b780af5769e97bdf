// Package etcdstore is a [store.Store] in an etcd that the nodes of a cluster share.
//
// A transaction whose answer is lost may have been applied, or may be applied later. txn.go says how the store finds out, and prevents
// the latter. An etcd that was restored from a backup shows an older state, in which an address in use looks free; rollback.go detects
// it. Entry point: [Open].
package etcdstore

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/store"
)

// Config says where the etcd is, and how to authenticate.
type Config struct {
	Endpoints []string // HOST:PORT of each member
	Prefix    string   // of every key, such as "/passthrough"; the same on all nodes of a cluster

	// CA is the file of the CA certificates of the members; with it the connection is TLS. Cert and Key are the files of the client
	// certificate, for members that demand one.
	CA, Cert, Key string

	// User is the etcd user, if etcd demands one; the password is the first line of PasswordFile. Without CA it goes over the network in
	// clear, which has to be allowed with Insecure.
	User, PasswordFile string
	Insecure           bool
}

// Check refuses a configuration that cannot work.
func (c *Config) Check() error {
	switch {
	case len(c.Endpoints) == 0:
		return errors.New("etcd: no endpoint")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("etcd: a certificate and its key go together")
	case c.Cert != "" && c.CA == "":
		return errors.New("etcd: a certificate of our own needs the CA of etcd's, too")
	case (c.User == "") != (c.PasswordFile == ""):
		return errors.New("etcd: a user and the file of its password go together")
	case c.User != "" && c.CA == "" && !c.Insecure:
		return errors.New("etcd: without TLS the password crosses the network in clear: give etcd a certificate and set ca, or set " +
			"insecure=yes if this network is trusted")
	}
	return nil
}

// Layout under the prefix: the schema version, the records, and the tokens of transactions, see [transaction].
const (
	schemaKey  = "/schema"
	recordsKey = "/r/"
	tokensKey  = "/t/"
)

// etcd is the store. It connects at the first call, and again whenever it has no connection, so that a node starts while etcd is away.
type etcd struct {
	rollbackGuard // checks all answers

	config Config
	keys   keyspace
	conn   *connection
	lease  tokenLease

	checkedConn atomic.Int64 // conn.events when etcd was last seen not to show an older state
}

// Open returns the store. It does not connect: while etcd is away every call returns an error that matches [store.ErrUnavailable] and says
// what to do.
func Open(c Config) (store.Store, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	e := &etcd{config: c, keys: keyspace(c.Prefix)}
	e.conn = newConnection(&e.config)
	return e, nil
}

// usable returns an error if the store is closed or ctx has ended.
func (e *etcd) usable(ctx context.Context, attempt string) error {
	err := ctx.Err()
	if e.conn.closed.Load() {
		err = store.ErrClosed
	}
	if err != nil {
		return &callError{config: &e.config, attempt: attempt, kind: store.ErrUnavailable, cause: err}
	}
	return nil
}

// Close implements [store.Store]. Calls in flight end with an error.
func (e *etcd) Close() error {
	if err := e.conn.close(); err != nil && !errors.Is(err, context.Canceled) {
		return &callError{config: &e.config, attempt: "close", cause: err}
	}
	return nil
}

// A keyspace is the prefix of all keys in etcd.
type keyspace string

// record returns the key of a record in etcd.
func (k keyspace) record(key string) string { return string(k) + recordsKey + key }

// token returns the key of a transaction's token in etcd.
func (k keyspace) token(token string) string { return string(k) + tokensKey + token }

// schema returns the key of the schema version in etcd.
func (k keyspace) schema() string { return string(k) + schemaKey }

// kv returns a record of etcd as callers know it.
func (k keyspace) kv(kv *mvccpb.KeyValue) store.KV {
	value := kv.Value
	if value == nil {
		value = []byte{}
	}
	return store.KV{Key: strings.TrimPrefix(string(kv.Key), k.record("")), Value: value, Rev: kv.ModRevision}
}

// compares returns the conditions as etcd comparisons. An absent key has revision 0 in etcd as in [store.Cond].
func (k keyspace) compares(conds []store.Cond) []clientv3.Cmp {
	var cmps []clientv3.Cmp
	for _, c := range conds {
		if c.NotNewer { // it holds for no record at all, too (etcd 3.6, server/etcdserver/txn, applyCompare)
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k.record(c.Key)).WithPrefix(), "<", c.Rev+1))
			continue
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k.record(c.Key)), "=", c.Rev))
	}
	return cmps
}

// reads returns operations that read the keys of the conditions, or the newest key under a prefix.
func (k keyspace) reads(conds []store.Cond) []clientv3.Op {
	var ops []clientv3.Op
	for _, c := range conds {
		opts := []clientv3.OpOption{clientv3.WithKeysOnly()}
		if c.NotNewer {
			opts = append(opts, clientv3.WithPrefix(), clientv3.WithLimit(1),
				clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
		}
		ops = append(ops, clientv3.OpGet(k.record(c.Key), opts...))
	}
	return ops
}

// writes returns the operations as etcd operations.
func (k keyspace) writes(then []store.Op) []clientv3.Op {
	var ops []clientv3.Op
	for _, op := range then {
		if op.Value == nil {
			ops = append(ops, clientv3.OpDelete(k.record(op.Key)))
		} else {
			ops = append(ops, clientv3.OpPut(k.record(op.Key), string(op.Value)))
		}
	}
	return ops
}
