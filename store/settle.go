package store

import "context"

// tokenKey is where a context has the token of a transaction.
type tokenKey struct{}

// WithToken names the transaction that is made with the context, so that it can be settled when its outcome is not known:
// also after a crash, if the token was written down before. Each transaction needs a token of its own, which is a key as
// any other; one without a token cannot be settled.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// TokenOf is the token that the context names, "" for none.
func TokenOf(ctx context.Context) string {
	token, _ := ctx.Value(tokenKey{}).(string)
	return token
}

// Settler is a Store in which a transaction may be applied after its caller has given it up.
type Settler interface {
	// Settle sees to it that this does not happen any more to the transaction with that token.
	Settle(ctx context.Context, token string) error
}

// Settle sees to it that the transaction with that token will not be applied any more unless it was already. After that
// reading its records tells which. Without a token, and in a store that applies nothing late, there is nothing to do.
func Settle(ctx context.Context, s Store, token string) error {
	if s, ok := s.(Settler); ok && token != "" {
		return s.Settle(ctx, token)
	}
	return nil
}
