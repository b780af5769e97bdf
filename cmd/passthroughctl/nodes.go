package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
)

// nodesCommand lists the nodes of an etcd.
func (c *ctl) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the nodes that share an etcd, when each was last seen, and the etcd's servers", Args: cobra.NoArgs,
		Example: "  passthroughctl nodes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, _, err := c.nodes(cmd)
			if err != nil {
				return err
			}
			if c.format != "table" {
				return write(cmd.OutOrStdout(), c.format, []admin.Nodes{answer}, nil)
			}
			err = writeTable(cmd.OutOrStdout(), answer.Nodes, []column[admin.Node]{
				{"NODE", func(n admin.Node) string { return n.ID }},
				{"NAME", func(n admin.Node) string { return n.Name }},
				{"POOLS", func(n admin.Node) string { return number(n.Pools) }},
				{"STATE", nodeState},
				{"LAST SEEN", lastSeen},
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout())
			return writeTable(cmd.OutOrStdout(), answer.Servers, []column[admin.Server]{
				{"ETCD", func(s admin.Server) string { return s.Endpoint }},
				{"VERSION", func(s admin.Server) string { return s.Version }},
				{"DATABASE", func(s admin.Server) string { return mib(s.Size) }},
				{"IN USE", func(s admin.Server) string { return mib(s.InUse) }},
				{"QUOTA", func(s admin.Server) string { return mib(s.Quota) }},
				{"STATE", func(s admin.Server) string { return cmp.Or(s.Error, strings.Join(s.Alarms, ","), "ok") }},
			})
		},
	}
}

// nodes asks the plugin for the nodes.
func (c *ctl) nodes(cmd *cobra.Command) (answer admin.Nodes, plugin *admin.Client, err error) {
	if plugin, _, err = c.client(); err != nil {
		return answer, nil, err
	}
	return answer, plugin, plugin.Call(cmd.Context(), admin.NodesCall, struct{}{}, &answer)
}

// nodeState returns the state of a node.
func nodeState(n admin.Node) string {
	if n.Lost {
		return "lost"
	}
	return "member"
}

// lastSeen says when a node was last seen.
func lastSeen(n admin.Node) string {
	if n.Seen.IsZero() {
		return "unknown"
	}
	return since(n.Seen) + " ago"
}

// mib returns a size in MiB, "" for one that is not known.
func mib(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// forgetCommand removes a node that is lost.
func (c *ctl) forgetCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "forget NODE", Short: "Remove a node of an etcd that is lost, and release its addresses", Args: cobra.ExactArgs(1),
		Long: "Remove a node that is lost, and release the addresses that it has: others get them. It asks before. NODE is the ID or the name of\n" +
			"a node. One that was seen in the last five minutes is refused without --force.",
		Example: "  passthroughctl forget host7",
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, plugin, err := c.nodes(cmd)
			if err != nil {
				return err
			}
			n, err := findNode(answer.Nodes, args[0])
			if err != nil {
				return err
			}
			err = confirm(cmd, fmt.Sprintf("node %s (%s), %s, last seen: %s. Others will get the addresses of its %d pools. Forget it?", n.ID, n.Name,
				nodeState(n), lastSeen(n), n.Pools))
			if err != nil {
				return err
			}
			var forgotten admin.ForgetAnswer
			if err := plugin.Call(cmd.Context(), admin.ForgetCall, admin.ForgetRequest{Node: n.ID, Force: force}, &forgotten); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is forgotten, with %d pools\n", n.ID, forgotten.Pools)
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also a node that was seen in the last five minutes")
	return cmd
}

// findNode returns the node with an ID or a name.
func findNode(nodes []admin.Node, text string) (found admin.Node, err error) {
	n := 0
	for _, node := range nodes {
		if node.ID == text {
			return node, nil
		}
		if node.Name == text {
			found, n = node, n+1
		}
	}
	switch n {
	case 0:
		return found, fmt.Errorf("no node %q; passthroughctl nodes lists them", text)
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%d nodes are called %q; name one by its ID, as passthroughctl nodes has it", n, text)
}
