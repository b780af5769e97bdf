package pool

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// Errors that callers can match with errors.Is. The store's own errors come through, see package store.
var (
	// ErrInvalid: the request is malformed, or asks for something impossible.
	ErrInvalid = errors.New("invalid request")
	// ErrUnknownPool: no pool has this handle.
	ErrUnknownPool = errors.New("unknown pool")
	// ErrInUse: the address is leased.
	ErrInUse = errors.New("address in use")
	// ErrFull: no address is left to choose from.
	ErrFull = errors.New("no address left")
	// ErrChanged: a record is not as this process left it: another node of a cluster wrote to the store, or another request of this node.
	// The caller loads the pool again and retries, see [Retry].
	ErrChanged = errors.New("the ledger was changed by another request; try again")
	// ErrLoading: the leases of the pool are being read, see [Pool.Loaded].
	ErrLoading = errors.New("the leases of the pool are still being read from the ledger; try again")

	// ErrLoadingKept matches ErrLoading: which address is kept for the container is not known before all leases were read. By default it is
	// worth a short wait only.
	ErrLoadingKept = Refuse(ErrLoading, "%s", ErrLoading)

	// errTaken: a lease of the address is in the store.
	errTaken = errors.New("address taken")
)

// refusal is an error whose text is for the user, and whose kind is for errors.Is.
type refusal struct {
	kind error
	text string
}

// Refuse returns an error with this text that matches kind.
func Refuse(kind error, format string, args ...any) error {
	return &refusal{kind: kind, text: fmt.Sprintf(format, args...)}
}

// RefuseNewer returns the error for a pool that has such options of newer versions, nil for none. The error matches [store.ErrNewer].
func RefuseNewer(pool string, options []string) error {
	if len(options) == 0 {
		return nil
	}
	return Refuse(store.ErrNewer, "pool %s has option %s of a newer version of the plugin, which this one does not know; upgrade the plugin on "+
		"this node", pool, strings.Join(options, " and "))
}

// Invalid returns err as an error that matches [ErrInvalid], nil for nil.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{kind: ErrInvalid, text: err.Error()}
}

// Error returns the text.
func (r *refusal) Error() string { return r.text }

// Unwrap returns the kind.
func (r *refusal) Unwrap() error { return r.kind }
