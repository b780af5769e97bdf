package store

import (
	"context"
	"errors"
)

// Doubtful is an error that matches [ErrAmbiguous] of a transaction that can be settled.
type Doubtful interface {
	error
	// Token is what to give to [Settle]. It may be written down and used after a restart. "" is for none.
	Token() string
}

// Settler is a Store in which a transaction may be applied after its caller was told that it is in doubt.
type Settler interface {
	// Settle sees to it that this does not happen any more to the transaction with that token.
	Settle(ctx context.Context, token string) error
}

// Doubt is the token of the transaction that err is about, "" when there is none.
func Doubt(err error) string {
	var d Doubtful
	if errors.As(err, &d) {
		return d.Token()
	}
	return ""
}

// Settle sees to it that the transaction with that token will not be applied any more unless it was already. After that
// reading its records tells which. Without a token, and in a store that applies nothing late, there is nothing to do.
func Settle(ctx context.Context, s Store, token string) error {
	if s, ok := s.(Settler); ok && token != "" {
		return s.Settle(ctx, token)
	}
	return nil
}
