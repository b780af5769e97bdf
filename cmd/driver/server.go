package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"github.com/mellanox/passthrough/cmd/driver/monitor"
)

// Limits on one request, in bytes.
const (
	// A request has a few KiB, and some 110 bytes for each published port: 16384 ports for RTP make 2 MiB.
	bodyMax   = 4 << 20
	headerMax = 16 << 10
)

// limits bound clients and calls. They are in one place so that a test can tighten them.
type limits struct {
	connections int           // at a time; further ones wait to be accepted
	header      time.Duration // from the connection, or the first byte of a further request, to the end of the header
	body        time.Duration // from there to the end of the body
	write       time.Duration // from the end of the call to the end of its answer
	idle        time.Duration // between two requests; an engine closes what it has not used for 30 s (26 and later)

	handler time.Duration // until a handler's context ends
	grace   time.Duration // how much longer the server waits for a handler to say why it gave up
	finish  time.Duration // after the signal to stop: calls in flight continue undisturbed
	windUp  time.Duration // then: their contexts have ended, they may undo what they began
	closing time.Duration // then: the reconciler ends and the stores are closed
}

// limitsFor keeps what follows the signal to stop under 10 seconds in all, which is what the engine waits between SIGTERM and
// SIGKILL. An engine has one connection for each call in flight, and a few idle ones.
func limitsFor(handler time.Duration) limits {
	return limits{
		connections: connectionsFor(1024), header: 5 * time.Second, body: 5 * time.Second, write: 5 * time.Second, idle: 2 * time.Minute,
		handler: handler, grace: 500 * time.Millisecond,
		finish: 7 * time.Second, windUp: time.Second, closing: 1500 * time.Millisecond,
	}
}

// longest is the longest time limit of a call: an engine waits for 30 s by default, see HANDLER_TIMEOUT in config.go.
const longest = 25 * time.Second

// of returns the time limit of a call.
func (l limits) of(rt route) time.Duration {
	if rt.flags&patient != 0 {
		return max(l.handler, min(2*l.handler, longest))
	}
	return l.handler
}

// connectionsFor returns the number of connections that the process may have at a time: wanted, or half of its limit of open files
// if that is less.
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
	engine  *registration                                     // nil: endpoints do not wait for it
	monitor *monitor.Monitor                                  // nil without METRICS
	streams map[string]func(context.Context, io.Writer) error // see streams; by the names of calls
	running sync.WaitGroup                                    // handlers at work, those included whose call has been answered with a timeout
}

// newServer returns a server for the given routes.
func newServer(routes []route, l limits, log *zap.Logger) *server {
	byPath := make(map[string]route, len(routes))
	for _, rt := range routes {
		byPath["/"+rt.op] = rt
	}
	return &server{routes: byPath, limits: l, log: log}
}

// serve answers on l until ctx ends, then lets the calls in flight finish. It releases nothing else: devices stay with their
// containers. The error is nil if every call finished.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	base, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	hs := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.limits.header,
		WriteTimeout:      s.limits.body + s.limits.of(route{flags: patient}) + s.limits.grace + s.limits.write,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    headerMax,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(netutil.LimitListener(l, s.limits.connections)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("socket %s: serve: %w", l.Addr(), err)
	case <-ctx.Done():
		return s.stop(hs, abandon)
	}
}

// stop closes the socket and waits for the calls in flight: first undisturbed, then with their contexts ended.
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

// drain waits until every call has been answered and every handler has returned.
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

// errAbandoned is the error of serve if calls in flight took too long.
var errAbandoned = errors.New("stop: calls in flight took too long and were canceled; the ledger knows how far they came")

// ServeHTTP answers one call.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var about subject
	op := strings.TrimPrefix(r.URL.Path, "/")
	rt, err := s.find(r, op)
	var body []byte
	if err == nil {
		body, err = s.read(w, r)
	}
	a := answerOf(nil, err)
	if err == nil {
		about.add(body)
		if rt.flags&registered != 0 {
			s.engine.wait(r.Context())
		}
		a = s.run(r.Context(), rt, body)
		about.add(a.body)
	}
	if r.Context().Err() != nil && a.outcome != outcomePanic && a.outcome != outcomeDeadline {
		a.outcome = outcomeGone
	}
	if write := s.streams[rt.op]; write != nil && a.err == nil {
		a = s.stream(w, r, rt.op, write)
	} else {
		writeAnswer(w, op, a)
	}
	s.engine.after(op)
	s.monitor.Call(cmp.Or(rt.op, "unknown"), string(a.outcome), time.Since(start))
	logCall(s.log, clip(op), rt.flags&quiet != 0, about, time.Since(start), a)
	logPayload(s.log, clip(op), body, a)
}

// stream has the answer of a call written. If that fails after the answer has begun, the connection is closed: the client sees that the end is
// missing.
func (s *server) stream(w http.ResponseWriter, r *http.Request, op string, write func(context.Context, io.Writer) error) answer {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.handler)
	defer cancel()
	out := &counter{w: w}
	err := write(ctx, out)
	if err != nil && out.n > 0 {
		s.log.Warn("answer was cut short", zap.String("op", op), errField(err))
		panic(http.ErrAbortHandler)
	}
	a := answerOf(nil, err)
	if err != nil {
		writeAnswer(w, op, a)
	}
	return a
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int
}

// Write implements [io.Writer].
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	return n, err
}

// find returns the route of a request.
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

// clip shortens a path that a client made up, for the log.
func clip(op string) string {
	const n = 64
	if len(op) <= n {
		return op
	}
	return op[:n]
}

// read reads the body within its bound. It removes the deadline afterwards: net/http watches the connection for a client that goes
// away under the same deadline, and would take its end for such a client (net/http, connReader.backgroundRead, Go 1.26). For the
// same reason http.Server.ReadTimeout cannot be used.
func (s *server) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(s.limits.body)); err != nil {
		return nil, fmt.Errorf("request body: set deadline: %w", err)
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("request body: remove deadline: %w", err)
	}
	return body, nil
}

// run makes the call and waits for its result with a bound: after a restart dockerd waits without one, and would hang. A call that
// exceeds the bound is answered with an error, and its handler is left to finish.
func (s *server) run(client context.Context, rt route, body []byte) answer {
	start, limit := time.Now(), s.limits.of(rt)
	done := make(chan answer, 1)
	var answered atomic.Bool // set by the first of the two that answer: the handler or the timeout
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(client, limit)
		defer cancel()
		a := guarded(ctx, rt, body)
		if answered.CompareAndSwap(false, true) {
			done <- a
			return
		}
		s.log.Warn("late call ended", zap.String("op", rt.op), zap.Duration("dur", time.Since(start)),
			zap.String("outcome", string(a.outcome)), errField(a.err))
	})
	timeout := time.NewTimer(limit + s.limits.grace)
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
			rt.op, limit),
	}
}

// guarded runs one call and turns a panic in it into an answer. Without that the connection would be closed, and the engine would
// retry the call, with an empty body, for 15 seconds.
func guarded(ctx context.Context, rt route, body []byte) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			a = answer{
				status:  http.StatusInternalServerError,
				outcome: outcomePanic,
				err:     fmt.Errorf("the plugin panicked: %v; this is a bug, its stack is in the plugin's log", v),
				stack:   string(debug.Stack()),
			}
		}
	}()
	out, err := rt.call(ctx, body)
	return answerOf(out, err)
}
