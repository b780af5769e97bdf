package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/journal"
)

// openShared opens the store that the nodes of a cluster share.
func openShared(cfg config) (store.Store, error) {
	etcd, err := parseStore(cfg.store, cfg.stateDir)
	if err != nil {
		return nil, err
	}
	if etcd == nil {
		return nil, errors.New("STORE is bolt: this node's ledger is its own; set STORE as the plugin has it (etcd://...)")
	}
	return etcdstore.Open(*etcd)
}

// nodesCommand lists the nodes, a line each: ID, name, number of pools or shares of pools, and state.
func nodesCommand(ctx context.Context, cfg config, _ []string) (err error) {
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
	_, _ = fmt.Fprintln(out, "NODE\tNAME\tPOOLS\tSTATE") // Flush returns its error
	for _, n := range all {
		handles, err := ipamdrv.CountHandles(ctx, shared, n.ID)
		if err != nil {
			return err
		}
		state := "member"
		if n.Lost {
			state = "lost"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%s\n", n.ID, n.Name, handles, state)
	}
	return errors.Join(out.Flush(), printSchema(ctx, os.Stdout, shared))
}

// forgetCommand removes a lost node, and releases its pools and addresses.
func forgetCommand(ctx context.Context, cfg config, args []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	n, err := ipamdrv.RemoveNode(ctx, shared, args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "forget: %d pools\n", n)
	return err
}

// acceptCommand makes this node accept the shared store as it is now, although it is older than what the node has seen: etcd was restored
// from a backup. The plugin must be stopped.
func acceptCommand(ctx context.Context, cfg config, _ []string) (err error) {
	own, err := openOwn(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	return errors.Join(ipamdrv.AcceptRestore(ctx, own), ipamdrv.AcceptDisk(ctx, own))
}

// renewCommand makes this machine a node of its own, because its disk is a copy of another node's. The plugin must be stopped.
func renewCommand(ctx context.Context, cfg config, _ []string) (err error) {
	own, err := openOwn(cfg)
	if err != nil {
		return err
	}
	j := journal.New(filepath.Join(cfg.stateDir, "journal"))
	defer func() { err = errors.Join(err, j.Close(), own.Close()) }()
	return ipamdrv.RenewNode(ctx, own, j)
}
