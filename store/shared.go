package store

import (
	"context"
	"errors"
)

// This file has what a store that several nodes share does beside [Store].

// RollbackDetector is a Store that refuses a state older than one that it has shown: an address that looks free there may be in use.
// Once it has met an older state it refuses all calls, whatever it shows later; the errors match [ErrRolledBack]. Its watermark can be
// kept across restarts.
type RollbackDetector interface {
	// Watermark returns the newest state that was seen, for SetWatermark; nil if none was.
	Watermark() []byte
	// SetWatermark sets the newest state that was seen before. It must be called before the first use. The error matches [ErrCorrupt]
	// if the watermark is none that Watermark has returned.
	SetWatermark(watermark []byte) error
}

// Schemas are what all nodes that share a store agree on. A node refuses a store with a newer one than it knows, and does what an older one
// says until an operator has raised it.
const (
	SchemaOldest = 1
	// SchemaShares: a network joins and leaves a shared pool without a write of the pool's record. Before, a removal of the pool was made on
	// the condition that this record is unchanged.
	SchemaShares = 2
	SchemaNewest = SchemaShares
)

// errNoSchema: a store that nodes of several versions share must be a [Gate].
var errNoSchema = errors.New("this store has no schema")

// A Gate is a Store with a schema.
type Gate interface {
	// Schema returns the store's schema, as it was at most a minute ago.
	Schema(ctx context.Context) (int, error)
	// RaiseSchema makes it the newest. Nodes that do not know it are refused within a minute, or when they connect again.
	RaiseSchema(ctx context.Context) error
}

// Schema returns the schema of a store, the oldest if it does not say it.
func Schema(ctx context.Context, s Store) (int, error) {
	if g, ok := s.(Gate); ok {
		return g.Schema(ctx)
	}
	return SchemaOldest, nil
}

// RaiseSchema calls [Gate.RaiseSchema] of a store.
func RaiseSchema(ctx context.Context, s Store) error {
	if g, ok := s.(Gate); ok {
		return g.RaiseSchema(ctx)
	}
	return errNoSchema
}

// A Watcher is a Store that tells of the writes of all nodes.
type Watcher interface {
	// Watch calls fn with the changes of records under prefix whose revisions are above rev, until ctx ends, the store is closed or fn returns
	// an error; it returns that error. Changes come in the order of revisions, and all of one revision in one call. rev 0 means from now on:
	// then Watch first calls fn with no events, and the revision from which on changes are told. Watch does not return an error while the
	// store is unavailable for a while. The error matches [ErrCompacted] if the store does not have the changes since rev any more.
	Watch(ctx context.Context, prefix string, rev int64, fn func(Changes) error) error
	// Pages calls fn with the records under prefix, a page at a time, in key order. Each page shows the revision that comes with it, which
	// is not below those of earlier pages and of earlier answers of the store. A page that cannot be read is retried until ctx ends.
	Pages(ctx context.Context, prefix string, fn func(rev int64, page []KV) error) error
}

// errNoWatcher: a store that nodes share must be a [Watcher].
var errNoWatcher = errors.New("this store does not tell of writes")

// Watch calls [Watcher.Watch] of a store.
func Watch(ctx context.Context, s Store, prefix string, rev int64, fn func(Changes) error) error {
	w, ok := s.(Watcher)
	if !ok {
		return errNoWatcher
	}
	return w.Watch(ctx, prefix, rev, fn)
}

// Pages calls [Watcher.Pages] of a store.
func Pages(ctx context.Context, s Store, prefix string, fn func(rev int64, page []KV) error) error {
	w, ok := s.(Watcher)
	if !ok {
		return errNoWatcher
	}
	return w.Pages(ctx, prefix, fn)
}

// Changes are what [Watcher.Watch] tells: all changes up to revision Rev, since those before.
type Changes struct {
	Rev    int64
	Events []Event
}

// An Event is a record as one write left it. If Deleted is true, KV has the key and the revision only.
type Event struct {
	KV
	Deleted bool
}

// ErrCompacted: the store does not have the changes since that revision any more. What was read before has to be read again.
var ErrCompacted = errors.New("the changes since that revision were compacted")

// Fencer is a Store in which a transaction may be applied after its caller has given up.
type Fencer interface {
	// Fence makes sure that the transaction with that token is not applied from now on.
	Fence(ctx context.Context, token string) error
}

// Fence makes sure that the transaction with that token will not be applied from now on. After that reading its records shows whether
// it was. Without a token, and in a store that applies nothing late, there is nothing to do.
func Fence(ctx context.Context, s Store, token string) error {
	if f, ok := s.(Fencer); ok && token != "" {
		return f.Fence(ctx, token)
	}
	return nil
}

// tokenKey is the key of a transaction's token in a context.
type tokenKey struct{}

// WithToken names the transaction that is made with the context, so that [Fence] can be called for it if its outcome is not known, also
// after a crash if the token was written down before. Each transaction needs a token of its own, which has the form of a key.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// TokenOf returns the token in the context, "" for none.
func TokenOf(ctx context.Context) string {
	token, _ := ctx.Value(tokenKey{}).(string)
	return token
}
