// Package etcdstore is a [store.Store] in an etcd that the nodes of a cluster share.
//
// A transaction whose answer is lost may have been applied, or may be applied later. txn.go says how the store finds out, and prevents
// the latter. An etcd that was restored from a backup shows an older state, in which an address in use looks free; rollback.go detects
// it. Entry point: [Open].
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/mellanox/passthrough/store"
)

// Config says where the etcd is, and how to authenticate.
type Config struct {
	Endpoints []string // HOST:PORT of each member
	Prefix    string   // of every key, such as "/passthrough"; the same on all nodes of a cluster

	// CA is the file of the CA certificates of the members; with it the connection is TLS. Cert and Key are the files of the client
	// certificate, for members that demand one.
	CA, Cert, Key string

	// User is the etcd user, if etcd demands one; the password is the first line of PasswordFile.
	User, PasswordFile string
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
	config Config
	ctx    context.Context // of the connection; ends with Close
	end    context.CancelFunc
	closed atomic.Bool

	rollback    atomic.Pointer[rolledBack] // not nil once etcd has shown an older state
	connEvents  atomic.Int64               // number of connections that were opened or closed
	checkedConn atomic.Int64               // connEvents when etcd was last seen not to show an older state

	mu         *semaphore.Weighted // a mutex with a context; guards the fields below
	client     *clientv3.Client    // nil until it is connected and the schema was checked
	lease      clientv3.LeaseID    // of tokens; 0 for none
	leaseSince time.Time
	seen       watermark
}

// Open returns the store. It does not connect: while etcd is away every call returns an error that matches [store.ErrUnavailable] and says
// what to do.
func Open(c Config) (store.Store, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	ctx, end := context.WithCancel(context.Background())
	return &etcd{config: c, ctx: ctx, end: end, mu: semaphore.NewWeighted(1)}, nil
}

// record returns the key of a record in etcd.
func (e *etcd) record(key string) string { return e.config.Prefix + recordsKey + key }

// connected returns the client, and connects if there is none.
func (e *etcd) connected(ctx context.Context) (*clientv3.Client, error) {
	if err := e.mu.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer e.mu.Release(1)
	if e.closed.Load() {
		return nil, store.ErrClosed
	}
	if e.client != nil {
		return e.client, nil
	}
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.checkSchema(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	e.client = client
	return client, nil
}

// Keepalives detect a broken connection. A member refuses more than one in 5 s by default (--grpc-keepalive-min-time).
const (
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
)

// connect makes a client. With a user it authenticates at once. It reads the files at each call.
func (e *etcd) connect(ctx context.Context) (*clientv3.Client, error) {
	tls, err := e.config.tls()
	if err != nil {
		return nil, err
	}
	password, err := e.config.password()
	if err != nil {
		return nil, err
	}
	const silent = 6 // above zapcore.FatalLevel: the errors say everything
	logger, err := logutil.CreateDefaultZapLogger(silent)
	if err != nil {
		return nil, err
	}
	bound := attemptMax
	if deadline, ok := ctx.Deadline(); ok {
		bound = max(min(bound, time.Until(deadline)), time.Millisecond)
	}
	return clientv3.New(clientv3.Config{
		Endpoints: e.config.urls(), Context: e.ctx, DialTimeout: bound, TLS: tls, Logger: logger,
		Username: e.config.User, Password: password,
		DialKeepAliveTime: keepAliveTime, DialKeepAliveTimeout: keepAliveTimeout,
		// The second is for an expired authentication token. The store retries calls itself, see retry.go.
		MaxUnaryRetries: 2,
		DialOptions:     []grpc.DialOption{grpc.WithStatsHandler(sentHandler{&e.connEvents}), grpc.WithChainUnaryInterceptor(keepError)},
	})
}

// schemaVersion is the version of the layout of keys and values.
const schemaVersion = 1

// checkSchema reads the schema version in etcd, and writes ours if there is none.
func (e *etcd) checkSchema(ctx context.Context, client *clientv3.Client) error {
	key := e.config.Prefix + schemaKey
	resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, strconv.Itoa(schemaVersion))).Else(clientv3.OpGet(key)).Commit()
	if err != nil || resp.Succeeded {
		return err
	}
	found := string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
	version, err := strconv.Atoi(found)
	switch {
	case err != nil || version < 1:
		return fmt.Errorf("%s: %w: schema version %.20q", key, store.ErrCorrupt, found)
	case version > schemaVersion:
		return fmt.Errorf("%w: it has schema %d, this version knows %d", store.ErrNewer, version, schemaVersion)
	}
	return nil
}

// Close implements [store.Store]. Calls in flight end with an error.
func (e *etcd) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.end()
	if err := e.mu.Acquire(context.Background(), 1); err != nil { // held for one attempt at most
		return err
	}
	defer e.mu.Release(1)
	if e.client == nil {
		return nil
	}
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return &callError{config: &e.config, attempt: "close", cause: err}
	}
	return nil
}
