package etcdstore_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
)

// fakeEtcd is a server that answers as etcd does, at a revision that the test sets. It keeps no records.
type fakeEtcd struct {
	pb.UnimplementedKVServer
	pb.UnimplementedLeaseServer

	addr string
	down sync.Mutex // held while no connection is accepted

	mu       sync.Mutex // guards the fields below
	revision int64
	applied  int   // transactions, without that of the schema
	atWrite  int64 // revision from the next transaction on; 0 for no change
	conns    []net.Conn
}

// startFakeEtcd starts a server at a revision.
func startFakeEtcd(t *testing.T, revision int64) *fakeEtcd {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &fakeEtcd{addr: listener.Addr().String(), revision: revision}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, r)
	pb.RegisterLeaseServer(server, r)
	done := make(chan error)
	go func() { done <- server.Serve(&recordingListener{listener, r}) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// recordingListener is a listener that records its connections.
type recordingListener struct {
	net.Listener
	server *fakeEtcd
}

// Accept implements [net.Listener].
func (n *recordingListener) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.server.down.Lock()
		defer n.server.down.Unlock()
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		n.server.conns = append(n.server.conns, c)
	}
	return c, err
}

// setRevision changes the revision.
func (r *fakeEtcd) setRevision(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revision = revision
}

// stop closes all connections, and accepts none.
func (r *fakeEtcd) stop() {
	r.down.Lock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// resume accepts connections again.
func (r *fakeEtcd) resume() { r.down.Unlock() }

// setRevisionAtWrite changes the revision at the next transaction.
func (r *fakeEtcd) setRevisionAtWrite(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.atWrite = revision
}

// writes returns the number of transactions that were applied.
func (r *fakeEtcd) writes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// headerLocked returns the header of an answer.
func (r *fakeEtcd) headerLocked() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, Revision: r.revision}
}

func (r *fakeEtcd) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &pb.RangeResponse{Header: r.headerLocked()}, nil
}

func (r *fakeEtcd) Txn(_ context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(txn.Success) > 1 {
		r.applied++
		if r.atWrite != 0 {
			r.revision, r.atWrite = r.atWrite, 0
		}
	}
	return &pb.TxnResponse{Header: r.headerLocked(), Succeeded: true}, nil
}

func (r *fakeEtcd) LeaseGrant(_ context.Context, g *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &pb.LeaseGrantResponse{Header: r.headerLocked(), ID: 1, TTL: g.TTL}, nil
}

// open opens a store on the server.
func (r *fakeEtcd) open(t *testing.T) store.Store {
	t.Helper()
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{r.addr}, Prefix: "/p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// write writes a record.
func write(t *testing.T, s store.Store) error {
	_, err := s.Txn(t.Context(), nil, []store.Op{store.Put("a", nil)})
	return err
}

// wantRolledBack checks that an older state was refused. A write is ambiguous if it was sent.
func wantRolledBack(t *testing.T, what string, err error, ambiguous bool) {
	t.Helper()
	if !errors.Is(err, store.ErrRolledBack) || errors.Is(err, store.ErrAmbiguous) != ambiguous ||
		errors.Is(err, store.ErrUnavailable) == ambiguous {
		t.Errorf("%s: %v, want ErrRolledBack, ambiguous: %v", what, err, ambiguous)
	}
}

// TestRollbackStays: once etcd has shown an older state it is refused, also when its revision has passed the watermark, and by the next process.
func TestRollbackStays(t *testing.T) {
	r := startFakeEtcd(t, 10)
	s := r.open(t)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	r.setRevision(3)
	_, err := s.Get(t.Context(), "a")
	wantRolledBack(t, "read", err, false)
	r.setRevision(20)
	_, err = s.Get(t.Context(), "a")
	wantRolledBack(t, "read later", err, false)
	wantRolledBack(t, "write later", write(t, s), false)
	next := r.open(t)
	if err := next.(store.RollbackDetector).SetWatermark(s.(store.RollbackDetector).Watermark()); err != nil {
		t.Fatal(err)
	}
	wantRolledBack(t, "write of the next process", write(t, next), false)
	if string(next.(store.RollbackDetector).Watermark()) != "1 10 3" || r.writes() > 0 {
		t.Errorf("the watermark is %q, %d writes were applied", next.(store.RollbackDetector).Watermark(), r.writes())
	}
	accepted := r.open(t)
	if err := write(t, accepted); err != nil {
		t.Error(err)
	}
}

// TestRollbackSeenByAWrite: a write whose answer shows an older state was applied there. It is ambiguous, so that its caller checks it later.
func TestRollbackSeenByAWrite(t *testing.T) {
	r := startFakeEtcd(t, 10)
	s := r.open(t)
	if err := write(t, s); err != nil {
		t.Fatal(err)
	}
	r.setRevisionAtWrite(3)
	wantRolledBack(t, "the write", write(t, s), true)
	wantRolledBack(t, "the next write", write(t, s), false)
	if r.writes() != 2 {
		t.Errorf("%d writes were applied", r.writes())
	}
}

// TestRollbackSeenBeforeAWrite: a restore of etcd closes its connections. After that the store reads before it writes, and writes nothing to an
// older state.
func TestRollbackSeenBeforeAWrite(t *testing.T) {
	r := startFakeEtcd(t, 10)
	s := r.open(t)
	if err := write(t, s); err != nil {
		t.Fatal(err)
	}
	r.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Txn(ctx, nil, []store.Op{store.Put("a", nil)}); err == nil {
		t.Error("a write succeeded while etcd was down")
	}
	r.setRevision(3)
	r.resume()
	wantRolledBack(t, "the write", write(t, s), false)
	if r.writes() != 1 {
		t.Errorf("%d writes were applied", r.writes())
	}
}
