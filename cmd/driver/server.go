package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Limits on what one request may take of us.
const (
	bodyMax   = 4 << 20  // bytes; the largest real request is a few KiB, or some 110 bytes for each port that is published: 16384 for RTP
	largeBody = 64 << 10 // bytes; of those that are larger only some are read at a time
	headerMax = 16 << 10 // bytes
)

// limits are the bounds on clients and on calls, in one place so that a test can tighten them.
type limits struct {
	connections int           // at a time, see crowd
	large       int           // of them that may have a large body
	header      time.Duration // from the connection, or the first byte of a further request, to the end of the header
	body        time.Duration // from there to the end of the body
	taking      time.Duration // from a call's bound to the end of its answer having been read
	idle        time.Duration // between two requests; an engine closes what it has not used for 30 s (26 and later)

	handler time.Duration // a handler's context ends
	grace   time.Duration // how much longer the server waits for a handler to say why it gave up
	finish  time.Duration // after the signal to stop: calls in flight go on undisturbed
	windUp  time.Duration // then: their contexts have ended, they may undo what they began
	closing time.Duration // then: the reconciler ends and the ledger is closed
}

// limitsFor keeps what comes after the signal to stop under 10 seconds in all: so long the engine waits between SIGTERM
// and SIGKILL. An engine has a connection for each call that is under way, and a handful of idle ones. Those above the limit
// lose nothing: they wait to be accepted.
func limitsFor(handler time.Duration) limits {
	return limits{
		connections: connectionsFor(1024), large: 8, header: 5 * time.Second, body: 5 * time.Second, taking: 5 * time.Second, idle: 2 * time.Minute,
		handler: handler, grace: 500 * time.Millisecond,
		finish: 7 * time.Second, windUp: time.Second, closing: 1500 * time.Millisecond,
	}
}

// connectionsFor is how many connections there may be at a time if the files that the process may have open allow that.
func connectionsFor(wanted int) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return wanted
	}
	return max(1, int(min(uint64(wanted), files.Cur/2)))
}

// server answers calls: it finds the route, bounds and guards the call, and logs it.
type server struct {
	routes  map[string]route // by URL path
	limits  limits
	log     *zap.Logger
	large   chan struct{}  // holds a value for each large body that there is
	running sync.WaitGroup // handlers at work, answered for or not
}

// newServer serves the given routes.
func newServer(routes []route, l limits, log *zap.Logger) *server {
	byPath := make(map[string]route, len(routes))
	for _, rt := range routes {
		byPath["/"+rt.op] = rt
	}
	return &server{routes: byPath, limits: l, log: log, large: make(chan struct{}, l.large)}
}

// serve answers on l until ctx ends, then lets the calls in flight finish. It releases nothing else: what is lent
// stays lent. The error is nil when every call came to its end.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	base, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	hs := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withVisitor,
		ReadHeaderTimeout: s.limits.header,
		WriteTimeout:      s.limits.body + s.limits.handler + s.limits.grace + s.limits.taking,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    headerMax,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(newCrowd(l, s.limits.connections)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("socket %s: serve: %w", l.Addr(), err)
	case <-ctx.Done():
		return s.stop(hs, abandon)
	}
}

// stop closes the socket and waits for the calls in flight: first as long as they like, then with their contexts ended.
func (s *server) stop(hs *http.Server, abandon context.CancelFunc) error {
	err := s.drain(hs, s.limits.finish)
	if err == nil {
		return nil
	}
	abandon()
	if err := s.drain(hs, s.limits.windUp); err != nil {
		return errors.Join(errAbandoned, err, hs.Close())
	}
	return errAbandoned
}

// drain waits until every call has been answered and every handler has returned, those too that were answered for.
func (s *server) drain(hs *http.Server, atMost time.Duration) error {
	bound, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	if err := hs.Shutdown(bound); err != nil {
		return fmt.Errorf("stop: answer the calls in flight within %s: %w", atMost, err)
	}
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-bound.Done():
		return fmt.Errorf("stop: let late calls finish within %s: %w", atMost, bound.Err())
	}
}

// errAbandoned is how serve ends when calls in flight took too long.
var errAbandoned = errors.New("stop: calls in flight took too long and were told to give up; " +
	"the ledger knows how far they came")

// ServeHTTP answers one call.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var about subject
	op := strings.TrimPrefix(r.URL.Path, "/")
	rt, err := s.find(r, op)
	var body []byte
	if err == nil {
		var done func()
		body, done, err = s.read(w, r)
		defer done()
	}
	a := answerOf(nil, err)
	if err == nil {
		about.add(body)
		done := working(r)
		a = s.run(r.Context(), rt, body)
		done()
		about.add(a.body)
	}
	if r.Context().Err() != nil && a.outcome != outcomePanic && a.outcome != outcomeDeadline {
		a.outcome = outcomeGone
	}
	writeAnswer(w, a)
	logCall(s.log, clip(op), rt.quiet, about, time.Since(start), a)
	logWords(s.log, clip(op), body, a)
}

// find is the route of a request.
func (s *server) find(r *http.Request, op string) (route, error) {
	rt, ok := s.routes[r.URL.Path]
	switch {
	case !ok:
		return route{}, refuse(http.StatusNotFound, "%s: no such call", clip(op))
	case r.Method != http.MethodPost:
		return route{}, refuse(http.StatusMethodNotAllowed, "%s: must be sent with POST", op)
	}
	return rt, nil
}

// clip keeps what a stranger calls a path from filling the log.
func clip(op string) string {
	const n = 64
	if len(op) <= n {
		return op
	}
	return op[:n]
}

// read reads the body within its bound; done is to be called when it is not needed any more. The bound is lifted afterwards:
// it is the same deadline under which net/http watches for a client that goes away, and it would take the end of the bound for
// that.
func (s *server) read(w http.ResponseWriter, r *http.Request) (body []byte, done func(), err error) {
	done = func() {}
	conn, end := http.NewResponseController(w), time.Now().Add(s.limits.body)
	if err := conn.SetReadDeadline(end); err != nil {
		return nil, done, fmt.Errorf("request body: set deadline: %w", err)
	}
	body, rest, err := beginBody(w, r)
	if err == nil && rest != nil {
		if done, err = s.admitLarge(end); err == nil {
			body, err = endBody(body, rest)
		}
	}
	if err != nil {
		return nil, done, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, done, fmt.Errorf("request body: lift deadline: %w", err)
	}
	return body, done, nil
}

// admitLarge waits until one more large body may be there, as long as its client may take to send it.
func (s *server) admitLarge(end time.Time) (done func(), err error) {
	patience := time.NewTimer(time.Until(end))
	defer patience.Stop()
	select {
	case s.large <- struct{}{}:
		return func() { <-s.large }, nil
	case <-patience.C:
		return func() {}, refuse(http.StatusServiceUnavailable, "request body: larger than %d bytes, and there are %d such already",
			largeBody, s.limits.large)
	}
}

// run makes the call and waits for its result, but not for ever: after a dockerd restart the engine has no bound of
// its own, and would hang with us. A call that outlives its deadline is answered for and left to finish.
func (s *server) run(client context.Context, rt route, body []byte) answer {
	start := time.Now()
	done := make(chan answer, 1)
	var answered atomic.Bool // by whoever is first: the handler, or the server on its behalf
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(client, s.limits.handler)
		defer cancel()
		a := guarded(ctx, rt, body)
		if answered.CompareAndSwap(false, true) {
			done <- a
			return
		}
		s.log.Warn("late call ended", zap.String("op", rt.op), zap.Duration("dur", time.Since(start)),
			zap.String("outcome", string(a.outcome)), errField(a.err))
	})
	timeout := time.NewTimer(s.limits.handler + s.limits.grace)
	defer timeout.Stop()
	select {
	case a := <-done:
		return a
	case <-timeout.C:
	}
	if !answered.CompareAndSwap(false, true) {
		return <-done
	}
	return answer{
		status:  http.StatusInternalServerError,
		outcome: outcomeDeadline,
		err: fmt.Errorf("%s took longer than %s and is left to finish; the plugin's log says how it ends",
			rt.op, s.limits.handler),
	}
}
