package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// A statusReport is what the command status prints.
type statusReport struct {
	Version  string       `json:"version"`
	Socket   string       `json:"socket"`
	Networks []networkRow `json:"networks"`
	Problems []string     `json:"problems"`
	// RDMANetns is shared or exclusive, "" for a machine without RDMA.
	RDMANetns rdma.Mode `json:"rdma_netns,omitempty"`
}

// A networkRow is a line of the command status.
type networkRow struct {
	Name       string   `json:"name"`
	ID         string   `json:"id"`
	Mode       string   `json:"mode"`
	VLAN       string   `json:"vlan,omitempty"`
	Devices    []string `json:"devices"`
	InUse      int      `json:"in_use"` // devices that its containers have
	Containers []string `json:"containers"`
	Subnets    []string `json:"subnets"`
	Known      bool     `json:"known"`           // to the engine, or it has another owner
	Owner      string   `json:"owner,omitempty"` // kind of its owners, if that is not the engine
	RDMA       []string `json:"rdma,omitempty"`  // RDMA devices of its devices
	// Representors are the ports on the host of the VFs that its containers have, if the NIC is in switchdev mode.
	Representors []string `json:"representors,omitempty"`
}

// statusCommand prints a summary.
func (c *ctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the networks, who is on them, and what is wrong", Args: cobra.NoArgs,
		Example: "  passthroughctl status",
		RunE: c.withView(func(cmd *cobra.Command, v *view, _ []string) error {
			pools, err := v.pools(cmd.Context())
			if err != nil {
				return err
			}
			r := v.report(pools, v.unrecorded(cmd.Context()))
			host, err := openHost()
			if err != nil {
				return err
			}
			if err := r.addRDMA(host, openRDMA()); err != nil {
				return err
			}
			if c.format != "table" {
				return write(cmd.OutOrStdout(), c.format, []statusReport{r}, nil)
			}
			return r.print(cmd.OutOrStdout())
		}),
	}
}

// unrecorded asks the plugin what looks as if it had set it up, and of which it has no record.
func (v *view) unrecorded(ctx context.Context) []string {
	var s admin.Status
	if err := v.plugin.Call(ctx, admin.StatusCall, admin.StatusRequest{Unrecorded: true}, &s); err != nil {
		return []string{fmt.Sprintf("devices without a record could not be looked for: %v", err)}
	}
	return s.Unrecorded
}

// report summarizes a view. unrecorded says which devices have no record.
func (v *view) report(pools []admin.Pool, unrecorded []string) statusReport {
	r := statusReport{Version: v.status.Version, Socket: v.socket, Networks: []networkRow{}, Problems: []string{}}
	for _, n := range v.status.Networks {
		_, known := v.names[n.ID]
		row := networkRow{Name: v.network(n.ID), ID: n.ID, Mode: n.Mode, VLAN: n.Options["vlan"], Owner: n.Owner,
			Devices: n.Devices, Containers: v.namesOf(n.ID), Subnets: n.Pools, Known: known || v.names == nil || n.Owner != ""}
		for _, d := range v.status.Devices {
			if d.Network == n.ID && d.Endpoint != "" {
				row.InUse++
			}
			if d.Network == n.ID && d.Representor != "" {
				row.Representors = append(row.Representors, d.Representor)
			}
		}
		if !row.Known {
			r.Problems = append(r.Problems, fmt.Sprintf("network %s is not known to the engine; the plugin removes it once it is sure", ledger.ShortID(n.ID)))
		}
		r.Networks = append(r.Networks, row)
	}
	slices.SortFunc(r.Networks, func(a, b networkRow) int { return cmp.Compare(a.Name, b.Name) })
	if len(v.lost) > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("the engine has the networks %s, of which the plugin has no records: their containers keep what they have, and "+
			"cannot be started again; install the plugin with the folder that has its records, or use passthroughctl restore with a backup, or create "+
			"the networks again", strings.Join(v.lost, ", ")))
	}
	r.Problems = append(append(r.Problems, v.deviceProblems()...), unrecorded...)
	for _, p := range pools {
		if left := p.Size - min(p.Size, uint64(p.Leased+p.Prefetched)); left*10 < p.Size && p.Size > 1 {
			r.Problems = append(r.Problems, fmt.Sprintf("pool %s (%s): %d of %d addresses are left", ledger.ShortID(p.ID), p.Subnet, left, p.Size))
		}
	}
	return r
}

// settles is how long a device may be on its way to or from a container before that is a problem.
const settles = time.Minute

// deviceProblems says which devices are quarantined, on their way for too long, or given to a container that the engine does not have.
func (v *view) deviceProblems() []string {
	var problems []string
	for _, d := range v.status.Devices {
		_, known := v.containers[d.Endpoint]
		switch {
		case d.Lost != "":
			problems = append(problems, v.lostProblem(d))
		case d.State == string(alloc.Quarantined):
			problems = append(problems, fmt.Sprintf("%s is quarantined for %s: %s", d.Label, since(d.Since), quarantineReason(d)))
		case d.State != string(alloc.Lent) && d.State != string(alloc.Ready) && time.Since(d.Since) > settles:
			problems = append(problems, fmt.Sprintf("%s is %s for %s; the plugin's log says why", d.Label, d.State, since(d.Since)))
		case d.Owner != nil:
			if gone := namespaceGone(d.Owner); gone != "" && time.Since(d.Since) > settles {
				problems = append(problems, fmt.Sprintf("%s is %s for %s to %s, and %s; if it has ended, passthroughctl free frees the device",
					d.Label, d.State, since(d.Since), v.container(d.Endpoint), gone))
			}
		case d.Endpoint != "" && !known && v.containers != nil && time.Since(d.Since) > settles:
			problems = append(problems, fmt.Sprintf("%s is %s for %s to endpoint %s of network %s, which has no running container",
				d.Label, d.State, since(d.Since), ledger.ShortID(d.Endpoint), v.network(d.Network)))
		}
	}
	return problems
}

// lostProblem says which container is without its device, why, and what to do.
func (v *view) lostProblem(d admin.Device) string {
	text := fmt.Sprintf("%s is without %s, which %s; ", v.container(d.Endpoint), d.Label, d.Lost)
	if at, known := v.containers[d.Endpoint]; known && d.Owner == nil {
		return text + "give it another: docker restart " + at.container
	}
	return text + "it gets another when it is started again"
}

// namespaceGone says why an owner's network namespace is not where it was; "" if it is, or if that cannot be found out.
func namespaceGone(o *admin.Owner) string {
	switch now, err := hw.NamespaceAt(o.Netns); {
	case errors.Is(err, hw.ErrNotFound):
		return o.Netns + " is gone"
	case err == nil && now != hw.Namespace{Device: o.Device, Inode: o.Inode}:
		return o.Netns + " is another namespace now"
	}
	return ""
}

// print prints the report for people.
func (r statusReport) print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "plugin %s at %s\n\n", r.Version, r.Socket); err != nil {
		return err
	}
	err := writeTable(w, r.Networks, used(r.Networks, []column[networkRow]{
		{"NETWORK", func(n networkRow) string { return n.Name }},
		{"MODE", func(n networkRow) string { return n.Mode }},
		{"VLAN", func(n networkRow) string { return n.VLAN }},
		{"DEVICES", func(n networkRow) string { return strings.Join(n.Devices, ",") }},
		{rdmaColumn, func(n networkRow) string { return strings.Join(n.RDMA, ",") }},
		{"REPRESENTORS", func(n networkRow) string { return shorten(strings.Join(n.Representors, ","), 30) }},
		{"IN USE", func(n networkRow) string { return number(n.InUse) }},
		{"SUBNETS", func(n networkRow) string { return strings.Join(n.Subnets, ",") }},
		{"CONTAINERS", func(n networkRow) string { return shorten(strings.Join(n.Containers, ","), 30) }},
	}, rdmaColumn, "REPRESENTORS"))
	if err != nil {
		return err
	}
	for i, p := range r.Problems {
		if i == 0 {
			p = "\nproblems:\n  " + p
		} else {
			p = "  " + p
		}
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	return nil
}
