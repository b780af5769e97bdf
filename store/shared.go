package store

import "context"

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
