package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

func TestPanicIsAnsweredAndSurvived(t *testing.T) {
	var calls int
	r := start(t, quick(), echo(&calls),
		doing("T.Panic", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
			return &echoResponse{Count: []int{}[r.Count]}, nil
		}))
	status, got := r.post(t, "T.Panic", `{"NetworkID":"n"}`)
	const text = "the plugin panicked: runtime error: index out of range [0] with length 0; " +
		"this is a bug, its stack is in the plugin's log"
	if want := errText(t, text); status != 500 || got != want {
		t.Errorf("got %d %s\nwant 500 %s", status, got, want)
	}
	if status, got := r.post(t, "T.Echo", `{"Count":1}`); status != 200 {
		t.Errorf("call after the panic: %d %s", status, got)
	}
	r.logged(t,
		`{"level":"error","ts":T,"msg":"call","op":"T.Panic","network":"n","dur":D,"outcome":"panic",`+
			`"err":"`+text+`","stack":S}`,
		`{"level":"info","ts":T,"msg":"call","op":"T.Echo","dur":D,"outcome":"ok"}`)
}

func TestLogLines(t *testing.T) {
	id := strings.Repeat("0123456789ab", 5) + "cdef"
	r := start(t, quick(),
		doing("T.Echo", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
			return &echoResponse{PoolID: "pool-" + id}, nil
		}),
		route{op: "T.Quiet", flags: quiet, call: handle(func(_ context.Context, r *echoRequest) (*echoResponse, error) {
			if r.Count > 0 {
				return nil, errors.New("no")
			}
			return nil, nil
		})})
	r.post(t, "T.Echo", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q}`, id, "e-"+id))
	r.post(t, "T.Quiet", `{}`)
	r.post(t, "T.Quiet", `{"Count":1}`)
	r.post(t, "T.Echo", ``)
	r.post(t, "T."+strings.Repeat("x", 100), ``)
	clipped := "T." + strings.Repeat("x", 62)
	r.logged(t,
		`{"level":"info","ts":T,"msg":"call","op":"T.Echo","network":"0123456789ab","endpoint":"e-0123456789",`+
			`"pool":"pool-0123456","dur":D,"outcome":"ok"}`,
		`{"level":"debug","ts":T,"msg":"call","op":"T.Quiet","dur":D,"outcome":"ok"}`,
		`{"level":"warn","ts":T,"msg":"call","op":"T.Quiet","dur":D,"outcome":"error","err":"no"}`,
		`{"level":"warn","ts":T,"msg":"call","op":"T.Echo","dur":D,"outcome":"refused","err":"request body: empty, `+
			`as when the engine repeats a call whose answer it lost; nothing was changed"}`,
		`{"level":"warn","ts":T,"msg":"call","op":"`+clipped+`","dur":D,"outcome":"refused",`+
			`"err":"`+clipped+`: no such call; nothing was changed"}`)
}

// TestPayload: at log level debug the log has requests and answers, cut to a length that the engine can read.
func TestPayload(t *testing.T) {
	var log logBuffer
	logPayload(newLogger(logJSON, &log, &log, zapcore.DebugLevel), "T.Echo", []byte(`{"Count":1}`), answer{status: 200, body: []byte(`{"Count":2}`)})
	logPayload(newLogger(logJSON, &log, &log, zapcore.DebugLevel), "T.Echo", []byte(strings.Repeat("x", 1<<20)), answer{status: 500, err: errors.New("no")})
	want := `{"level":"debug","ts":T,"msg":"payload","op":"T.Echo","request":"{\"Count\":1}","status":200,"answer":"{\"Count\":2}"}
{"level":"debug","ts":T,"msg":"payload","op":"T.Echo","request":"` + strings.Repeat("x", 8<<10) + `","status":500,"answer":"","err":"no"}
`
	if got := log.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
