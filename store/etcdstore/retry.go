package etcdstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// Timeouts. An election takes one to two seconds, the restart of a member not much longer; a call of the engine has some 10 seconds, and
// uses the store more than once.
const (
	callTimeout = 5 * time.Second        // of one call of the store, if its context lasts as long
	attemptMax  = 2 * time.Second        // of one attempt: the next one goes to another member
	attemptMin  = 500 * time.Millisecond // enough to connect and to authenticate
	retryPause  = 50 * time.Millisecond
)

// A retrier makes one call of the store, in several attempts if necessary.
type retrier struct {
	store   *etcd
	what    string // "read", "write" or "fence", for the error
	start   time.Time
	end     time.Time
	lastErr error // of the last attempt that ended with more than a timeout
}

// retrier begins a call. The context that it returns ends with ctx, or with the call's timeout.
func (e *etcd) retrier(ctx context.Context, what string) (*retrier, context.Context, context.CancelFunc) {
	r := &retrier{store: e, what: what, start: time.Now()}
	ctx, cancel := context.WithDeadline(ctx, r.start.Add(callTimeout))
	r.end, _ = ctx.Deadline()
	return r, ctx, cancel
}

// timeLeft returns the part of the call's time that is left, from 1 to 0.
func (r *retrier) timeLeft() float64 {
	return float64(time.Until(r.end)) / float64(max(r.end.Sub(r.start), 1))
}

// attempt runs fn with a part of the call's time. sent is false if no request left this host: then etcd has certainly not seen it.
func (r *retrier) attempt(ctx context.Context, fn func(context.Context, *clientv3.Client) error) (sent bool, err error) {
	timeout := min(max(r.end.Sub(r.start)/4, attemptMin), attemptMax)
	var s sentState
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, sentKey{}, &s), timeout)
	defer cancel()
	client, err := r.store.conn.get(ctx)
	if err != nil {
		return false, r.record(err, &s)
	}
	s.sent.Store(false) // connecting sends requests of its own
	var renewed atomic.Bool
	s.onError = func(err error) { // before the client authenticates anew with what was refused, which takes etcd a tenth of a second of CPU
		if r.store.conn.renew(client, err) {
			renewed.Store(true)
			cancel()
		}
	}
	err = fn(ctx, client)
	if err != nil && renewed.Load() {
		err = &renewedError{err}
	}
	return s.sent.Load(), r.record(err, &s)
}

// renewedError is an error of a client that was replaced since, because the files of its credentials have changed: a retry is of use.
type renewedError struct{ error }

// Unwrap returns the cause.
func (e *renewedError) Unwrap() error { return e.error }

// record keeps the error for the call's error, unless it says no more than that time was up. It returns err.
func (r *retrier) record(err error, s *sentState) error {
	cause := err
	if grpcErr := s.err.Load(); grpcErr != nil && errors.Is(err, context.DeadlineExceeded) {
		cause = *grpcErr
	}
	if r.lastErr == nil || cause != nil && !isTimeout(cause) {
		r.lastErr = cause
	}
	return err
}

// isTimeout returns true if err says no more than that time was up.
func isTimeout(err error) bool {
	_, hasReason := transportError(err)
	return !hasReason && (errors.Is(err, context.DeadlineExceeded) || codeOf(err) == codes.DeadlineExceeded)
}

// pause waits before the next attempt. It returns false if there is no time for one.
func (r *retrier) pause(ctx context.Context) bool { return retry.Sleep(ctx, retryPause) == nil }

// read runs fn, which changes nothing, until etcd has answered.
func (r *retrier) read(ctx context.Context, fn func(context.Context, *clientv3.Client) error) error {
	for {
		_, err := r.attempt(ctx, fn)
		if err == nil {
			return nil
		}
		if permanent(err) || !r.pause(ctx) {
			return r.fail(ctx, store.ErrUnavailable)
		}
	}
}

// fail returns the error of a call that is given up.
func (r *retrier) fail(ctx context.Context, kind error) *callError {
	cause := r.lastErr
	if err := ctx.Err(); errors.Is(err, context.Canceled) || cause == nil {
		cause = err
	}
	if r.store.conn.closed.Load() {
		cause = store.ErrClosed
	}
	return &callError{config: &r.store.config, attempt: r.what, kind: kind, cause: cause}
}

// permanent returns true for an error after which a retry is of no use: etcd has refused the request, or the request cannot be made.
func permanent(err error) bool {
	var file *fileError
	var renewed *renewedError
	if errors.As(err, &renewed) {
		return false
	}
	if errors.As(err, &file) || errors.Is(err, store.ErrRolledBack) {
		return true
	}
	if errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrNewer) || errors.Is(err, store.ErrCorrupt) {
		return true
	}
	switch codeOf(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.ResourceExhausted, codes.FailedPrecondition,
		codes.Unauthenticated, codes.OutOfRange, codes.Unimplemented, codes.AlreadyExists, codes.DataLoss:
		return true
	}
	return false
}

// sentState has what gRPC tells about a request beside its answer.
type sentState struct {
	sent atomic.Bool           // the request has left this host
	err  atomic.Pointer[error] // gRPC's own error; the etcd client turns it into "deadline exceeded"

	onError func(error) // called with each error of gRPC; nil for nothing
}

// sentKey is the key of the *sentState in a context.
type sentKey struct{}

// keepError is the interceptor that sets sentState.err. It sees each request that the etcd client makes for one call.
func keepError(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if s, ok := ctx.Value(sentKey{}).(*sentState); ok && err != nil {
		s.err.Store(&err)
		if s.onError != nil {
			s.onError(err)
		}
	}
	return err
}

// sentHandler is the stats handler that sets sentState.sent. A request without a connection ends with the same code as one whose
// connection broke before the answer; this tells them apart. It also counts how often a connection was opened or closed.
type sentHandler struct{ connEvents *atomic.Int64 }

// TagRPC implements [stats.Handler].
func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (sentHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); !ok {
		return
	}
	if s, ok := ctx.Value(sentKey{}).(*sentState); ok {
		s.sent.Store(true)
	}
}

// TagConn implements [stats.Handler].
func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (h sentHandler) HandleConn(context.Context, stats.ConnStats) { h.connEvents.Add(1) }
