package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mellanox/passthrough/internal/retry"
	"go.uber.org/zap/zapcore"
)

// echoRequest and echoResponse are the smallest call; the names of the IDs are the engine's.
type echoRequest struct {
	NetworkID, EndpointID string
	Count                 int
}

type echoResponse struct {
	PoolID string `json:",omitempty"`
	Count  int
}

// quick returns limits that are short enough for a test.
func quick() limits {
	l := limitsFor(5 * time.Second)
	l.grace, l.finish = 50*time.Millisecond, 5*time.Second
	return l
}

// tempSocket is a path short enough for a unix socket, which t.TempDir's often is not.
func tempSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "plugins", "p.sock")
}

// logBuffer collects log lines from several goroutines.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is the log so far, its times and durations replaced.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.buf.String()
	for _, varying := range []struct{ what, by string }{
		{`"ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)"`, `"ts":T`},
		{`"dur":"[0-9.]+(ns|µs|ms|s)"`, `"dur":D`},
		{`"stack":"goroutine [^"]*"`, `"stack":S`},
	} {
		s = regexp.MustCompile(varying.what).ReplaceAllString(s, varying.by)
	}
	return s
}

// harness is a server on a real socket.
type harness struct {
	path string
	log  *logBuffer
	stop func() error // stops the server as SIGTERM does; returns what serve returned
}

// start serves routes until the test ends.
func start(t *testing.T, l limits, routes ...route) *harness {
	t.Helper()
	r := &harness{path: tempSocket(t), log: new(logBuffer)}
	ln, err := listen(r.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- newServer(routes, l, newLogger(logJSON, r.log, r.log, zapcore.DebugLevel)).serve(ctx, ln)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// client returns an HTTP client for the socket at path.
func client(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// post makes a call and returns the status and the body.
func (r *harness) post(t *testing.T, op, body string) (int, string) {
	t.Helper()
	resp, err := client(r.path).Post("http://plugin/"+op, "", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Content-Type"); got != "application/vnd.docker.plugins.v1.2+json" {
		t.Errorf("%s: Content-Type %q", op, got)
	}
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// logged stops the server and compares its log without the payloads.
func (r *harness) logged(t *testing.T, want ...string) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	got := slices.DeleteFunc(strings.Split(strings.TrimSuffix(r.log.String(), "\n"), "\n"), func(line string) bool {
		return strings.Contains(line, `"msg":"payload"`)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log: %s", diff)
	}
}

// doing returns a route that calls do.
func doing(op string, do func(context.Context, *echoRequest) (*echoResponse, error)) route {
	return route{op: op, call: handle(do)}
}

// echo returns a route that answers with the count of the request, and counts its calls.
func echo(calls *int) route {
	return doing("T.Echo", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
		*calls++
		return &echoResponse{Count: r.Count}, nil
	})
}

// errText returns the body of an answer with the error err.
func errText(t *testing.T, err string) string {
	t.Helper()
	out, e := json.Marshal(map[string]string{"Err": err})
	if e != nil {
		t.Fatal(e)
	}
	return string(out)
}

// await waits until a condition holds, for 5 seconds at most.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if retry.Poll(context.Background(), 5*time.Millisecond, 5*time.Second, func() (bool, error) { return holds(), nil }) != nil {
		t.Errorf("waited 5 s for %s", what)
	}
}
