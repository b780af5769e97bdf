package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// An outcome is how a call ended, as the log names it.
type outcome string

const (
	outcomeOK       outcome = "ok"
	outcomeError    outcome = "error"    // the driver said no
	outcomeRefused  outcome = "refused"  // not a request we take; no driver was asked
	outcomePanic    outcome = "panic"    // a bug; answered with an error
	outcomeDeadline outcome = "deadline" // answered with an error while the driver still works on it
	outcomeGone     outcome = "gone"     // the client left before the answer
)

// answer is what a call came to. The body is sent when err is nil, the text of err otherwise.
type answer struct {
	status  int
	body    []byte
	outcome outcome
	err     error
	stack   string
}

// refusal is the error of a request that no driver was asked about.
type refusal struct {
	status int
	why    error
}

// Error says why, and that the engine need not fear a half-done change.
func (r *refusal) Error() string { return r.why.Error() + "; nothing was changed" }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.why }

// refuse makes a refusal.
func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Errorf(format, args...)}
}

// answerOf is the answer that a call's result makes.
func answerOf(body []byte, err error) answer {
	var no *refusal
	switch {
	case err == nil:
		return answer{status: http.StatusOK, body: body, outcome: outcomeOK}
	case errors.As(err, &no):
		return answer{status: no.status, outcome: outcomeRefused, err: err}
	default:
		return answer{status: http.StatusInternalServerError, outcome: outcomeError, err: err}
	}
}

// call is a driver's method behind its wire format: JSON in, JSON out.
type call func(ctx context.Context, body []byte) ([]byte, error)

// handle makes a call of a driver's method.
func handle[Req, Resp any](method func(context.Context, *Req) (*Resp, error)) call {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		req := new(Req)
		if err := decode(body, req); err != nil {
			return nil, err
		}
		resp, err := method(ctx, req)
		if err != nil {
			return nil, err
		}
		return encode(resp)
	}
}

// handleBare makes a call of a method that takes no argument: the engine sends an empty body with it.
func handleBare[Req, Resp any](method func(context.Context, *Req) (*Resp, error)) call {
	return func(ctx context.Context, _ []byte) ([]byte, error) {
		resp, err := method(ctx, new(Req))
		if err != nil {
			return nil, err
		}
		return encode(resp)
	}
}

// decode reads the one JSON object that body has to be. Fields that we do not know are let pass: newer engines have
// more of them.
//
// An empty body is refused at once. The engine repeats a call whose answer it lost with the buffer that it has drained
// already (all versions from 20.10 to 29): filling in defaults would make a network out of nothing.
func decode(body []byte, into any) error {
	trimmed := bytes.TrimSpace(body)
	if len(trimmed) == 0 {
		return refuse(http.StatusBadRequest, "request body: empty, as when the engine repeats a call whose answer it lost")
	}
	if trimmed[0] != '{' {
		return refuse(http.StatusBadRequest, "request body: not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	if err := dec.Decode(into); err != nil {
		return refuse(http.StatusBadRequest, "request body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "request body: data after the JSON object")
	}
	return nil
}

// encode is the JSON of an answer; a method that has nothing to say may return nil.
func encode[Resp any](resp *Resp) ([]byte, error) {
	if resp == nil {
		return []byte("{}"), nil
	}
	out, err := json.Marshal(resp)
	if err != nil {
		return nil, fmt.Errorf("answer: encode %T: %w", resp, err)
	}
	return out, nil
}

// beginBody reads a body; if it is large, how it begins, and rest is where there is more.
func beginBody(w http.ResponseWriter, r *http.Request) (body []byte, rest io.Reader, err error) {
	whole := http.MaxBytesReader(w, r.Body, bodyMax)
	body, err = io.ReadAll(io.LimitReader(whole, largeBody))
	if err != nil || len(body) < largeBody {
		return body, nil, notRead(err)
	}
	return body, whole, nil
}

// endBody reads the rest of a large body.
func endBody(begin []byte, rest io.Reader) ([]byte, error) {
	more, err := io.ReadAll(rest)
	return append(begin, more...), notRead(err)
}

// notRead says what is wrong with a body, if something is.
func notRead(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "request body: larger than %d bytes", tooLarge.Limit)
	case err != nil:
		return refuse(http.StatusBadRequest, "request body: read: %w", err)
	}
	return nil
}

// toldMax is how much of an error is told. An engine cuts what a plugin logs into lines of 64 KiB, and a byte can take six in
// JSON.
const toldMax = 8 << 10

// told is the text of an error: all of it, or, if the error quotes what a client has sent without end, how it begins and ends.
func told(err error) string {
	text := err.Error()
	if len(text) <= toldMax {
		return text
	}
	const last = toldMax / 4
	return text[:toldMax-last] + " [...] " + text[len(text)-last:]
}

// contentType is the media type of every answer, as the engine asks for it in Accept.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// writeAnswer sends a. Its errors are of no use to anyone: the client has gone, which the log line of the call says.
func writeAnswer(w http.ResponseWriter, a answer) {
	body := a.body
	if a.err != nil {
		// Both of the engine's stubs look for "Err" when the status is not 200.
		body, _ = json.Marshal(struct{ Err string }{told(a.err)})
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}
