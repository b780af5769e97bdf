package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mellanox/passthrough/internal/admin"
)

// An outcome is how a call ended, as the log names it.
type outcome string

const (
	outcomeOK       outcome = "ok"
	outcomeError    outcome = "error"    // the driver returned an error
	outcomeRefused  outcome = "refused"  // not a valid request; no driver was called
	outcomePanic    outcome = "panic"    // a bug; answered with an error
	outcomeDeadline outcome = "deadline" // answered with an error while the driver still works on it
	outcomeGone     outcome = "gone"     // the client closed the connection before the answer
)

// answer is the result of a call. The body is sent if err is nil, the text of err otherwise.
type answer struct {
	status  int
	body    []byte
	outcome outcome
	err     error
	stack   string
}

// refusal is the error of a request that reached no driver.
type refusal struct {
	status int
	why    error
}

// Error says why, and that nothing was changed.
func (r *refusal) Error() string { return r.why.Error() + "; nothing was changed" }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.why }

// refuse returns a refusal with an HTTP status.
func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Errorf(format, args...)}
}

// answerOf turns the result of a call into an answer.
func answerOf(body []byte, err error) answer {
	var refused *refusal
	switch {
	case err == nil:
		return answer{status: http.StatusOK, body: body, outcome: outcomeOK}
	case errors.As(err, &refused):
		return answer{status: refused.status, outcome: outcomeRefused, err: err}
	default:
		return answer{status: http.StatusInternalServerError, outcome: outcomeError, err: err}
	}
}

// call is a driver's method that takes and returns JSON.
type call func(ctx context.Context, body []byte) ([]byte, error)

// handle turns a driver's method into a call.
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

// handleBare turns a method without argument into a call. The engine sends an empty body with it.
func handleBare[Req, Resp any](method func(context.Context, *Req) (*Resp, error)) call {
	return func(ctx context.Context, _ []byte) ([]byte, error) {
		resp, err := method(ctx, new(Req))
		if err != nil {
			return nil, err
		}
		return encode(resp)
	}
}

// decode reads a body, which must be one JSON object. Unknown fields are ignored: newer engines send more of them.
//
// An empty body is refused. The engine retries a call whose answer it lost with an already drained buffer (all versions from 20.10
// to 29): defaults in place of the missing request would create a network that the user never asked for.
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

// encode returns the JSON of a response, and {} if the method returned nil.
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

// readBody reads a body of at most bodyMax bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(http.StatusRequestEntityTooLarge, "request body: larger than %d bytes", tooLarge.Limit)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "request body: read: %w", err)
	}
	return body, nil
}

// errorMax is the longest error text that is answered or logged, in bytes. An engine cuts what a plugin logs into lines of 64 KiB,
// and a byte can take six in JSON.
const errorMax = 8 << 10

// errorText returns the text of an error. If the text is longer than errorMax, as when it quotes a huge request, its middle is left out.
func errorText(err error) string {
	text := err.Error()
	if len(text) <= errorMax {
		return text
	}
	const last = errorMax / 4
	return text[:errorMax-last] + " [...] " + text[len(text)-last:]
}

// told returns the text of the error of a call of the engine, with the command that tells an operator more.
func told(op string, err error) string {
	text := errorText(err)
	if command := admin.TellsMore(text); command != "" && !strings.HasPrefix(op, admin.Prefix) {
		text += "; more: passthroughctl " + command
	}
	return text
}

// contentType is the media type of every answer, as the engine asks for it in Accept.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// writeAnswer sends the answer to a call. A write fails only if the client has gone, which the log line of the call says.
func writeAnswer(w http.ResponseWriter, op string, a answer) {
	body := a.body
	if a.err != nil {
		// Both of the engine's stubs look for "Err" when the status is not 200.
		body, _ = json.Marshal(struct{ Err string }{told(op, a.err)})
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}
