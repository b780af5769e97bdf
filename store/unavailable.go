package store

import (
	"context"
	"errors"
)

// Unavailable is a Store whose every call fails with err, which then also matches [ErrUnavailable]. With it the plugin
// can come up without its ledger and tell everybody who asks why it refuses.
func Unavailable(err error) Store { return unavailable{cause: err} }

// unavailable is both the store and the error that it returns.
type unavailable struct{ cause error }

// Error is the cause's text, which says more than "unavailable".
func (u unavailable) Error() string {
	if u.cause == nil {
		return ErrUnavailable.Error()
	}
	return u.cause.Error()
}

// Is makes the error match [ErrUnavailable] beside its cause.
func (u unavailable) Is(target error) bool { return errors.Is(ErrUnavailable, target) }

// Unwrap returns the cause.
func (u unavailable) Unwrap() error { return u.cause }

// Txn implements [Store].
func (u unavailable) Txn(context.Context, []Cond, []Op) (Result, error) { return Result{}, u }

// Get implements [Store].
func (u unavailable) Get(context.Context, string) (KV, error) { return KV{}, u }

// Range implements [Store].
func (u unavailable) Range(context.Context, string, func(KV) error) error { return u }

// Close implements [Store]. There is nothing to close.
func (u unavailable) Close() error { return nil }
