package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mellanox/passthrough/internal/admin"
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

// nodesCommand lists the nodes, a line each: ID, name, number of pools or shares of pools, state, and when it last wrote that it runs.
func nodesCommand(ctx context.Context, cfg config, _ []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	all, err := readNodes(ctx, shared)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "NODE\tNAME\tPOOLS\tSTATE\tLAST SEEN") // Flush returns its error
	for _, n := range all {
		state, seen := "member", "unknown"
		if !n.Seen.IsZero() {
			seen = fmt.Sprintf("%s ago", ago(n.Seen))
		}
		if n.Lost {
			state = "lost"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%s\t%s\n", n.ID, n.Name, n.Pools, state, seen)
	}
	return errors.Join(out.Flush(), printServers(ctx, os.Stdout, shared), printSchema(ctx, os.Stdout, shared))
}

// readNodes reads the nodes, and how many pools or shares of pools each has.
func readNodes(ctx context.Context, shared store.Store) ([]admin.Node, error) {
	all, err := cluster.Nodes(ctx, shared)
	if err != nil {
		return nil, err
	}
	handles, err := ipamdrv.CountHandles(ctx, shared)
	if err != nil {
		return nil, err
	}
	nodes := []admin.Node{}
	for _, n := range all {
		nodes = append(nodes, admin.Node{ID: n.ID, Name: n.Name, Pools: handles[n.ID], Lost: n.Lost, Seen: n.Seen})
	}
	return nodes, nil
}

// nodes answers the nodes and servers of the etcd that the plugin uses.
func (d *drivers) nodes(ctx context.Context, _ *struct{}) (_ *admin.Nodes, err error) {
	shared, err := d.openShared()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	nodes, err := readNodes(ctx, shared)
	if err != nil {
		return nil, err
	}
	answer := &admin.Nodes{Nodes: nodes, Servers: []admin.Server{}}
	for _, s := range store.Servers(ctx, shared) {
		server := admin.Server{Endpoint: s.Endpoint, Version: s.Version, Size: s.Size, InUse: s.InUse, Quota: s.Quota, Alarms: s.Alarms}
		if s.Err != nil {
			server.Error = s.Err.Error()
		}
		answer.Servers = append(answer.Servers, server)
	}
	return answer, nil
}

// forget removes a lost node, as forgetCommand does.
func (d *drivers) forget(ctx context.Context, r *admin.ForgetRequest) (_ *admin.ForgetAnswer, err error) {
	shared, err := d.openShared()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	n, err := forget(ctx, shared, r.Node, r.Force)
	return &admin.ForgetAnswer{Pools: n}, err
}

// forget removes a node, and releases its pools and addresses. It returns how many pools those were.
func forget(ctx context.Context, shared store.Store, id string, forced bool) (pools int, err error) {
	if !forced {
		if err := refuseAlive(ctx, shared, id); err != nil {
			return 0, err
		}
	}
	return ipamdrv.RemoveNode(ctx, shared, id)
}

// printServers prints a line for each etcd member: version, size of its database in MiB, and its alarms or why it does not answer.
func printServers(ctx context.Context, w io.Writer, shared store.Store) error {
	out := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "\nETCD\tVERSION\tDATABASE\tIN USE\tQUOTA\tSTATE") // Flush returns its error
	for _, s := range store.Servers(ctx, shared) {
		if s.Err != nil {
			_, _ = fmt.Fprintf(out, "%s\t-\t-\t-\t-\t%v\n", s.Endpoint, s.Err)
			continue
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Endpoint, s.Version, mib(s.Size), mib(s.InUse), mib(s.Quota),
			cmp.Or(strings.Join(s.Alarms, ","), "ok"))
	}
	return out.Flush()
}

// mib returns a size in MiB, "-" for one that is not known.
func mib(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// ago returns the time since a node was seen, by this host's clock.
func ago(seen time.Time) time.Duration { return max(time.Since(seen), 0).Round(time.Second) }

// aliveFor is the time after its last sign during which a node is not removed without --force. A node gives one each minute.
const aliveFor = 5 * cluster.SeenEvery

// refuseAlive refuses to remove a node that seems to run: the addresses of its containers would be given to others.
func refuseAlive(ctx context.Context, shared store.Store, id string) error {
	all, err := cluster.Nodes(ctx, shared)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.ID == id && !n.Lost && !n.Seen.IsZero() && ago(n.Seen) < aliveFor {
			return fmt.Errorf("node %s (%s): forget: it was seen %s ago; the addresses of its containers would be given to others: if it is "+
				"off, wait until it was not seen for %s, or use forget --force", n.ID, n.Name, ago(n.Seen), aliveFor)
		}
	}
	return nil
}

// force is the option that makes forgetCommand remove a node that seems to run.
const force = "--force"

// forgetCommand removes a lost node, and releases its pools and addresses.
func forgetCommand(ctx context.Context, cfg config, args []string) (err error) {
	shared, err := openShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	n, err := forget(ctx, shared, args[len(args)-1], args[0] == force)
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
