package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Errors that callers can match with errors.Is.
var (
	// ErrUnavailable: the server does not answer, or says that it cannot now.
	ErrUnavailable = errors.New("does not answer")
	// ErrNotTrusted: the client and the server do not accept each other, or a file that is needed for it cannot be used.
	ErrNotTrusted = errors.New("not trusted")
	// ErrUnknown: the server has no such network, subnet or lease.
	ErrUnknown = errors.New("unknown")
	// ErrInUse: the address that was asked for is leased under another key.
	ErrInUse = errors.New("in use")
	// ErrFull: the server has no address left.
	ErrFull = errors.New("no address left")
	// ErrReleased: the key was released, and cannot be used again.
	ErrReleased = errors.New("released")
	// ErrInvalid: the server cannot do what was asked for.
	ErrInvalid = errors.New("invalid")
	// ErrProtocol: the answer is none of the protocol.
	ErrProtocol = errors.New("not understood")
)

// An Error is the error of a request.
type Error struct {
	Server string // its address
	Kind   error  // one of those above
	Text   string // what the server said, or what failed
}

// Error says which server, what it said, and what to do.
func (e *Error) Error() string {
	switch e.Kind {
	case ErrUnavailable:
		return fmt.Sprintf("IPAM server %s does not answer (%s); see that it runs and that this host reaches it", e.Server, e.Text)
	case ErrNotTrusted:
		return fmt.Sprintf("IPAM server %s: %s; check the files of the CA, the certificate and the token", e.Server, e.Text)
	}
	return fmt.Sprintf("IPAM server %s: %s", e.Server, e.Text)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Refused returns true if the server has said that it made no lease.
func (e *Error) Refused() bool {
	switch e.Kind {
	case ErrUnknown, ErrInUse, ErrFull, ErrReleased, ErrInvalid:
		return true
	}
	return false
}

// codes are the kinds of refusals by the code in the answer, statuses those of an answer without such a code.
var codes = map[string]error{"unknown": ErrUnknown, "in_use": ErrInUse, "full": ErrFull, "released": ErrReleased, "invalid": ErrInvalid}

var statuses = map[int]error{
	http.StatusBadRequest: ErrInvalid, http.StatusNotFound: ErrUnknown, http.StatusConflict: ErrInUse, http.StatusGone: ErrReleased,
	http.StatusUnauthorized: ErrNotTrusted, http.StatusForbidden: ErrNotTrusted,
	http.StatusTooManyRequests: ErrUnavailable, http.StatusBadGateway: ErrUnavailable,
	http.StatusServiceUnavailable: ErrUnavailable, http.StatusGatewayTimeout: ErrUnavailable,
}

// maxText is how much of what a server says is kept, in bytes.
const maxText = 300

// refusal returns the error of an answer that is none of success.
func (c *Client) refusal(got *http.Response, said []byte) error {
	var answer struct{ Code, Error string }
	_ = json.Unmarshal(said, &answer) // what is no JSON is of a proxy, or not of this protocol
	e := &Error{Server: c.config.URL, Kind: codes[answer.Code], Text: printable(answer.Error)}
	if e.Kind == nil {
		e.Kind = statuses[got.StatusCode]
	}
	if e.Kind == nil {
		e.Kind = ErrProtocol
	}
	if e.Text == "" {
		e.Text = got.Status
	}
	return e
}

// printable returns a text as one line of limited length.
func printable(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}
