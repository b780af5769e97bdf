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

// revisions is a server that answers as an etcd does of which a test says what revision it has. It keeps no records.
type revisions struct {
	pb.UnimplementedKVServer
	pb.UnimplementedLeaseServer

	addr string
	gate sync.Mutex // held while it is down

	mu       sync.Mutex // guards the fields below
	revision int64
	written  int // transactions that were applied, without that of the schema
	atWrite  int64
	conns    []net.Conn
}

// newRevisions starts one.
func newRevisions(t *testing.T, revision int64) *revisions {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &revisions{addr: listener.Addr().String(), revision: revision}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, r)
	pb.RegisterLeaseServer(server, r)
	done := make(chan error)
	go func() { done <- server.Serve(&noting{listener, r}) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// noting is a listener that notes its connections.
type noting struct {
	net.Listener
	of *revisions
}

func (n *noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.of.gate.Lock()
		defer n.of.gate.Unlock()
		n.of.mu.Lock()
		defer n.of.mu.Unlock()
		n.of.conns = append(n.of.conns, c)
	}
	return c, err
}

// is changes the revision.
func (r *revisions) is(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revision = revision
}

// goesDown ends all connections, and makes none.
func (r *revisions) goesDown() {
	r.gate.Lock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// comesBack makes connections again.
func (r *revisions) comesBack() { r.gate.Unlock() }

// goesBackAtWrite has it have this revision from the next transaction on.
func (r *revisions) goesBackAtWrite(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.atWrite = revision
}

// applied is how many transactions were.
func (r *revisions) applied() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// header is what each answer begins with. The caller has r.mu.
func (r *revisions) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, Revision: r.revision}
}

func (r *revisions) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &pb.RangeResponse{Header: r.header()}, nil
}

func (r *revisions) Txn(_ context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(txn.Success) > 1 {
		r.written++
		if r.atWrite != 0 {
			r.revision, r.atWrite = r.atWrite, 0
		}
	}
	return &pb.TxnResponse{Header: r.header(), Succeeded: true}, nil
}

func (r *revisions) LeaseGrant(_ context.Context, g *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &pb.LeaseGrantResponse{Header: r.header(), ID: 1, TTL: g.TTL}, nil
}

// opens opens the ledger there.
func (r *revisions) opens(t *testing.T) store.Store {
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

// wantPast checks that an older state was refused, and whether what was asked for may have been done.
func wantPast(t *testing.T, what string, err error, ambiguous bool) {
	t.Helper()
	if !errors.Is(err, store.ErrRolledBack) || errors.Is(err, store.ErrAmbiguous) != ambiguous ||
		errors.Is(err, store.ErrUnavailable) == ambiguous {
		t.Errorf("%s: %v, want that it is refused as of the past, in doubt %v", what, err, ambiguous)
	}
}

// That etcd went back is not forgotten when its revision has grown past what was seen, nor by the next process.
func TestEtcdPastStays(t *testing.T) {
	r := newRevisions(t, 10)
	s := r.opens(t)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	r.is(3)
	_, err := s.Get(t.Context(), "a")
	wantPast(t, "read", err, false)
	r.is(20)
	_, err = s.Get(t.Context(), "a")
	wantPast(t, "read later", err, false)
	wantPast(t, "write later", write(t, s), false)
	next := r.opens(t)
	if err := next.(store.RollbackDetector).SetWatermark(s.(store.RollbackDetector).Watermark()); err != nil {
		t.Fatal(err)
	}
	wantPast(t, "write of the next process", write(t, next), false)
	if string(next.(store.RollbackDetector).Watermark()) != "1 10 3" || r.applied() > 0 {
		t.Errorf("the past is %q, %d writes were made", next.(store.RollbackDetector).Watermark(), r.applied())
	}
	accepted := r.opens(t)
	if err := write(t, accepted); err != nil {
		t.Error(err)
	}
}

// A write that meets an older state has been made there: its outcome is in doubt, so that its caller sees to it later.
func TestEtcdPastMetByAWrite(t *testing.T) {
	r := newRevisions(t, 10)
	s := r.opens(t)
	if err := write(t, s); err != nil {
		t.Fatal(err)
	}
	r.goesBackAtWrite(3)
	wantPast(t, "the write", write(t, s), true)
	wantPast(t, "the next", write(t, s), false)
	if r.applied() != 2 {
		t.Errorf("%d writes were made", r.applied())
	}
}

// An etcd that was restored, for which it has to end its connections, is not written to at all.
func TestEtcdPastSeenBeforeAWrite(t *testing.T) {
	r := newRevisions(t, 10)
	s := r.opens(t)
	if err := write(t, s); err != nil {
		t.Fatal(err)
	}
	r.goesDown()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Txn(ctx, nil, []store.Op{store.Put("a", nil)}); err == nil {
		t.Error("written while etcd is down")
	}
	r.is(3)
	r.comesBack()
	wantPast(t, "the write", write(t, s), false)
	if r.applied() != 1 {
		t.Errorf("%d writes were made", r.applied())
	}
}
