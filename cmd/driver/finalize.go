package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mellanox/passthrough/store"
)

// finalizeCommand raises the schema of the shared store: an operator knows that all nodes run this version, and that none goes back.
func finalizeCommand(ctx context.Context, cfg config, _ []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	from, err := store.Schema(ctx, shared)
	if err == nil {
		err = store.RaiseSchema(ctx, shared)
	}
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "finalize: schema %d, was %d\n", store.SchemaNewest, from)
	}
	return err
}

// printSchema says whether older nodes can use the shared store.
func printSchema(ctx context.Context, out io.Writer, shared store.Store) error {
	schema, err := store.Schema(ctx, shared)
	if err == nil && schema < store.SchemaNewest {
		_, err = fmt.Fprintf(out, "\nschema %d: nodes of an older version can use this ledger; when none is left: driver finalize\n", schema)
	}
	return err
}
