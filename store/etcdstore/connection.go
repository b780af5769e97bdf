package etcdstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/mellanox/passthrough/store"
)

// connection makes the client when it is needed first.
type connection struct {
	config *Config
	ctx    context.Context // of the client; ends with close
	end    context.CancelFunc
	closed atomic.Bool
	events atomic.Int64 // number of connections to members that were opened or closed

	mu     *semaphore.Weighted // a mutex with a context; guards the fields below
	client *clientv3.Client    // nil until it is connected and the schema was checked
	files  [sha256.Size]byte   // checksum of the files that the client was made with
	schema schema
}

// newConnection returns a connection without a client yet.
func newConnection(c *Config) *connection {
	ctx, end := context.WithCancel(context.Background())
	return &connection{config: c, ctx: ctx, end: end, mu: semaphore.NewWeighted(1), schema: schema{key: keyspace(c.Prefix).schema()}}
}

// get returns the client, and connects if there is none.
func (c *connection) get(ctx context.Context) (*clientv3.Client, error) {
	if err := c.mu.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.mu.Release(1)
	if c.closed.Load() {
		return nil, store.ErrClosed
	}
	if c.client != nil {
		return c.client, c.schema.recheck(ctx, c.client)
	}
	files, err := c.config.checksum()
	if err != nil {
		return nil, err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.schema.check(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	c.client, c.files = client, files
	return client, nil
}

// renew closes a client after an error that says that etcd refused its credentials, or that it refused etcd's certificate, if the files that
// it was made with have changed since: a password or a CA was replaced. So there is one new client for each change. It returns true if the
// next call of get returns another client.
func (c *connection) renew(client *clientv3.Client, err error) bool {
	if !refused(err) || c.mu.Acquire(c.ctx, 1) != nil {
		return false
	}
	defer c.mu.Release(1)
	if c.client != client || c.closed.Load() {
		return c.client != client // another call was first
	}
	if files, err := c.config.checksum(); err != nil || files == c.files {
		return false // with the same files, or half of the new ones, a new client is of no use
	}
	c.client = nil
	_ = client.Close() // it is of no use any more; calls that use it end with an error and are retried
	return true
}

// Keepalives detect a broken connection. A member refuses more than one in 5 s by default (--grpc-keepalive-min-time).
const (
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
)

// connect makes a client from the files as they are now. With a user it authenticates at once.
func (c *connection) connect(ctx context.Context) (*clientv3.Client, error) {
	tls, err := c.config.tls()
	if err != nil {
		return nil, err
	}
	password, err := c.config.password()
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
		Endpoints: c.config.urls(), Context: c.ctx, DialTimeout: bound, TLS: tls, Logger: logger,
		Username: c.config.User, Password: password,
		DialKeepAliveTime: keepAliveTime, DialKeepAliveTimeout: keepAliveTimeout,
		// The second is for an expired authentication token. The store retries calls itself, see retry.go.
		MaxUnaryRetries: 2,
		DialOptions:     []grpc.DialOption{grpc.WithStatsHandler(sentHandler{&c.events}), grpc.WithChainUnaryInterceptor(keepError)},
	})
}

// close closes the client. Calls in flight end with an error.
func (c *connection) close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.end()
	if err := c.mu.Acquire(context.Background(), 1); err != nil { // held for one attempt at most
		return err
	}
	defer c.mu.Release(1)
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}
