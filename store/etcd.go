package store

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
	"google.golang.org/grpc"
)

// EtcdConfig says where the ledger of a cluster is, and as whom to use it.
type EtcdConfig struct {
	Endpoints []string // HOST:PORT of each member
	Prefix    string   // what every key begins with, such as "/passthrough"; all nodes of a cluster have the same

	// CA is the file of the certificates that sign the members'; with it the connection is TLS. Cert and Key are the
	// files of our own certificate, for members that want one.
	CA, Cert, Key string

	// User is who we are, when etcd wants to know; the password is the first line of PasswordFile.
	User, PasswordFile string
}

// Check refuses what cannot work whatever etcd says.
func (c *EtcdConfig) Check() error {
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

// Layout under the prefix: the schema version, the records, and the tokens of transactions, see [etcdWrite].
const (
	etcdSchema  = "/schema"
	etcdRecords = "/r/"
	etcdTokens  = "/t/"
)

// etcd is the ledger of a cluster in etcd. It connects at the first call and whenever that is what is needed, so that a
// node comes up while etcd is away.
type etcd struct {
	config EtcdConfig
	ctx    context.Context // of the connection; ends with Close
	end    context.CancelFunc
	closed atomic.Bool
	back   atomic.Pointer[etcdPast] // once an older state was shown
	conns  atomic.Int64             // how many connections have begun and ended
	looked atomic.Int64             // how many had when it was last seen that the state is not an older one

	turn   chan struct{}    // holds a value while somebody works on the fields below
	client *clientv3.Client // nil until it is connected and the schema was seen
	lease  clientv3.LeaseID // what tokens hang on, 0 for none
	since  time.Time        // when lease was granted
	seen   past
}

// OpenEtcd makes a Store of the ledger that a cluster keeps in etcd. It does not connect: while etcd is away every call
// answers an error that matches [ErrUnavailable] and says what to do, and works once etcd is back.
func OpenEtcd(c EtcdConfig) (Store, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	ctx, end := context.WithCancel(context.Background())
	return &etcd{config: c, ctx: ctx, end: end, turn: make(chan struct{}, 1)}, nil
}

// record is a record's key in etcd.
func (e *etcd) record(key string) string { return e.config.Prefix + etcdRecords + key }

// take waits for the turn on e's fields; the caller gives it back by receiving from e.turn.
func (e *etcd) take(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connected is the client, made when there is none.
func (e *etcd) connected(ctx context.Context) (*clientv3.Client, error) {
	if err := e.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-e.turn }()
	if e.closed.Load() {
		return nil, errClosed
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

// How a broken connection is noticed. A member refuses to be asked more often than every 5 s by default
// (--grpc-keepalive-min-time).
const (
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
)

// connect makes a client. With a user it asks for a token at once; the files are read anew each time.
func (e *etcd) connect(ctx context.Context) (*clientv3.Client, error) {
	tls, err := e.config.tls()
	if err != nil {
		return nil, err
	}
	password, err := e.config.password()
	if err != nil {
		return nil, err
	}
	const silent = 6 // above zapcore.FatalLevel: what there is to say is in the errors
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
		// The second is for a token of authentication that has expired. We repeat calls ourselves, see etcdWrite.
		MaxUnaryRetries: 2,
		DialOptions:     []grpc.DialOption{grpc.WithStatsHandler(departures{&e.conns}), grpc.WithChainUnaryInterceptor(overhear)},
	})
}

// checkSchema reads the version of the ledger's layout, and writes ours when there is none.
func (e *etcd) checkSchema(ctx context.Context, client *clientv3.Client) error {
	key := e.config.Prefix + etcdSchema
	resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, strconv.Itoa(schemaVersion))).Else(clientv3.OpGet(key)).Commit()
	if err != nil || resp.Succeeded {
		return err
	}
	found := string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
	version, err := strconv.Atoi(found)
	switch {
	case err != nil || version < 1:
		return fmt.Errorf("%s: %w: schema version %.20q", key, ErrCorrupt, found)
	case version > schemaVersion:
		return fmt.Errorf("%w: it has schema %d, this version knows %d", ErrNewer, version, schemaVersion)
	}
	return nil
}

// Close implements [Store]. Calls that are running end with an error.
func (e *etcd) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.end()
	e.turn <- struct{}{} // nobody has it for longer than an attempt lasts
	defer func() { <-e.turn }()
	if e.client == nil {
		return nil
	}
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return &etcdError{config: &e.config, attempt: "close", cause: err}
	}
	return nil
}
