package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// What an operator can ask about the nodes that share a ledger.

// openShared opens the ledger that nodes share.
func openShared(cfg config) (store.Store, error) {
	etcd, err := parseStore(cfg.pools, cfg.stateDir)
	if err != nil {
		return nil, err
	}
	if etcd == nil {
		return nil, errors.New("STORE is bolt: this node's ledger is its own; set STORE as the plugin has it (etcd://...)")
	}
	return store.OpenEtcd(*etcd)
}

// nodes lists the nodes, a line each: ID, name, and how many pools, or shares of them, each has.
func nodes(ctx context.Context, cfg config, _ []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	all, err := cluster.Nodes(ctx, shared)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "NODE\tNAME\tPOOLS\tSTATE") // Flush tells of errors
	for _, n := range all {
		handles, err := ipamdrv.Handles(ctx, shared, n.ID)
		if err != nil {
			return err
		}
		state := "member"
		if n.Lost {
			state = "lost"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%s\n", n.ID, n.Name, handles, state)
	}
	return out.Flush()
}

// forget ends what a node has that is lost.
func forget(ctx context.Context, cfg config, args []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	n, err := ipamdrv.Forget(ctx, shared, args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "forget: %d pools\n", n)
	return err
}

// accept has this node take the shared ledger as it is now for the truth, though it is older than what the node has seen.
// The plugin has to be stopped.
func accept(ctx context.Context, cfg config, _ []string) (err error) {
	own, err := openOwn(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	return ipamdrv.Accept(ctx, own)
}
