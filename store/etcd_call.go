package store

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
)

// How long etcd is waited for. An election takes one to two seconds, a member that restarts not much longer; an engine's
// call has some 10 seconds, and asks the ledger more than once.
const (
	patience   = 5 * time.Second        // for one call of ours, if its context lasts as long
	attemptMax = 2 * time.Second        // for one attempt: the next one goes to another member
	attemptMin = 500 * time.Millisecond // enough to connect and to prove who we are
	pause      = 50 * time.Millisecond
)

// trial is one call of the ledger, in as many attempts as it takes.
type trial struct {
	store *etcd
	what  string // "read" or "write"
	start time.Time
	end   time.Time
	last  error // why the last attempt that says something ended
}

// trial begins a call. The context that it returns ends with the caller's or with our patience.
func (e *etcd) trial(ctx context.Context, what string) (*trial, context.Context, context.CancelFunc) {
	t := &trial{store: e, what: what, start: time.Now()}
	t.end = t.start.Add(patience)
	ctx, cancel := context.WithDeadline(ctx, t.end)
	t.end, _ = ctx.Deadline()
	return t, ctx, cancel
}

// left is the part of the time that is left.
func (t *trial) left() float64 {
	return float64(time.Until(t.end)) / float64(max(t.end.Sub(t.start), 1))
}

// attempt runs fn with a share of the time. departed says whether a request left this host: when none did, etcd does not
// know of it.
func (t *trial) attempt(ctx context.Context, fn func(context.Context, *clientv3.Client) error) (departed bool, err error) {
	share := min(max(t.end.Sub(t.start)/4, attemptMin), attemptMax)
	var d departure
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, departureKey{}, &d), share)
	defer cancel()
	client, err := t.store.connected(ctx)
	if err != nil {
		return false, t.note(err, &d)
	}
	d.left.Store(false) // what connecting sent was no request of ours
	err = fn(ctx, client)
	return d.left.Load(), t.note(err, &d)
}

// note keeps the last error that says more than that time was up.
func (t *trial) note(err error, d *departure) error {
	said := err
	if why := d.why.Load(); why != nil && errors.Is(err, context.DeadlineExceeded) {
		said = *why
	}
	if t.last == nil || said != nil && !timeUp(said) {
		t.last = said
	}
	return err
}

// timeUp says whether err tells no more than that time was up.
func timeUp(err error) bool {
	_, says := transportError(err)
	return !says && (errors.Is(err, context.DeadlineExceeded) || codeOf(err) == codes.DeadlineExceeded)
}

// wait pauses before the next attempt; false when there is no time for one.
func (t *trial) wait(ctx context.Context) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// read runs fn, which changes nothing, until it is answered.
func (t *trial) read(ctx context.Context, fn func(context.Context, *clientv3.Client) error) error {
	for {
		_, err := t.attempt(ctx, fn)
		if err == nil {
			return nil
		}
		if final(err) || !t.wait(ctx) {
			return t.fail(ctx, ErrUnavailable)
		}
	}
}

// fail is the error of a call that came to nothing.
func (t *trial) fail(ctx context.Context, kind error) *etcdError {
	cause := t.last
	if err := ctx.Err(); errors.Is(err, context.Canceled) || cause == nil {
		cause = err
	}
	if t.store.closed.Load() {
		cause = errClosed
	}
	return &etcdError{config: &t.store.config, attempt: t.what, kind: kind, cause: cause}
}

// final says whether asking again is of no use: etcd has answered, and said no, or we cannot ask.
func final(err error) bool {
	var file *unusable
	if errors.As(err, &file) || errors.Is(err, ErrPast) {
		return true
	}
	if errors.Is(err, errClosed) || errors.Is(err, ErrNewer) || errors.Is(err, ErrCorrupt) {
		return true
	}
	switch codeOf(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.ResourceExhausted, codes.FailedPrecondition,
		codes.Unauthenticated, codes.OutOfRange, codes.Unimplemented, codes.AlreadyExists, codes.DataLoss:
		return true
	}
	return false
}

// departure is what is known of a request beyond its answer.
type departure struct {
	left atomic.Bool           // it has left this host
	why  atomic.Pointer[error] // gRPC's own words for its failure; the client makes "deadline exceeded" of them
}

// departureKey is where a context has its *departure.
type departureKey struct{}

// overhear keeps gRPC's words.
func overhear(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if d, ok := ctx.Value(departureKey{}).(*departure); ok && err != nil {
		d.why.Store(&err)
	}
	return err
}

// departures is the handler that sets left. A request for which there is no connection ends with the same code as one
// whose connection broke before the answer; this tells them apart. It also counts the beginnings and ends of connections.
type departures struct{ conns *atomic.Int64 }

// TagRPC implements [stats.Handler].
func (departures) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (departures) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if d, ok := ctx.Value(departureKey{}).(*departure); ok {
		d.left.Store(true)
	}
}

// TagConn implements [stats.Handler].
func (departures) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (d departures) HandleConn(context.Context, stats.ConnStats) { d.conns.Add(1) }
