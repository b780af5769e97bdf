package ipamdrv

import (
	"errors"
	"fmt"
)

// Errors that callers can match with errors.Is. The ledger's own errors come through, see package store.
var (
	// ErrInvalid: the request is malformed, or asks for what cannot be.
	ErrInvalid = errors.New("invalid request")
	// ErrUnknownPool: no pool has this handle.
	ErrUnknownPool = errors.New("unknown pool")
	// ErrInUse: somebody has the address.
	ErrInUse = errors.New("address in use")
	// ErrFull: no address is left to choose from.
	ErrFull = errors.New("no address left")
)

// refusal is an error whose text is for the user and whose kind is for errors.Is.
type refusal struct {
	kind error
	text string
}

// refuse makes a refusal of this kind.
func refuse(kind error, format string, args ...any) error {
	return &refusal{kind: kind, text: fmt.Sprintf(format, args...)}
}

// Error is the text.
func (r *refusal) Error() string { return r.text }

// Unwrap is the kind.
func (r *refusal) Unwrap() error { return r.kind }
