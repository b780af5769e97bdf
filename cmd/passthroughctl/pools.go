package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// poolsCommand lists the pools.
func (c *ctl) poolsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pools", Short: "List the address pools, and how full they are", Args: cobra.NoArgs,
		Example: "  passthroughctl pools",
		RunE: c.withView(func(cmd *cobra.Command, v *view, _ []string) error {
			pools, err := v.pools(cmd.Context())
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), c.format, pools, []column[admin.Pool]{
				{"POOL", func(p admin.Pool) string { return ledger.ShortID(p.ID) }},
				{"NAME", func(p admin.Pool) string { return p.Name }},
				{"SUBNET", func(p admin.Pool) string { return p.Subnet }},
				{"GATEWAY", func(p admin.Pool) string { return p.Gateway }},
				{"LEASED", func(p admin.Pool) string { return fmt.Sprintf("%d/%d", p.Leased, p.Size) }},
				{"AHEAD", func(p admin.Pool) string { return number(p.Prefetched) }},
				{"COOLDOWN", func(p admin.Pool) string { return number(p.Cooldown) }},
				{"NETWORKS", func(p admin.Pool) string { return v.networkNames(p.Networks) }},
			})
		}),
	}
}

// networkNames returns the names of networks.
func (v *view) networkNames(ids []string) string {
	var names []string
	for _, id := range ids {
		names = append(names, v.network(id))
	}
	return strings.Join(names, ",")
}

// A leaseRow is a line of the command leases.
type leaseRow struct {
	admin.Lease
	Pool   string `json:"pool"` // ID
	Subnet string `json:"subnet"`
}

// leasesCommand lists leases.
func (c *ctl) leasesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "leases [POOL]", Short: "List the addresses that are leased, of a pool or of all", Args: cobra.MaximumNArgs(1),
		Example: "  passthroughctl leases\n  passthroughctl leases customer1\n  passthroughctl leases 194.168.1.0/24",
		Long: "List the addresses that are leased, and those that are in cooldown. POOL is a pool's ID or the beginning of it, its name, its\n" +
			"subnet, or the name of a network that has it.",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			rows, err := v.leaseRows(cmd, args)
			if err != nil {
				return err
			}
			return c.writeLeases(cmd, rows)
		}),
	}
}

// writeLeases prints leases.
func (c *ctl) writeLeases(cmd *cobra.Command, rows []leaseRow) error {
	return write(cmd.OutOrStdout(), c.format, rows, []column[leaseRow]{
		{"ADDRESS", func(r leaseRow) string { return r.Address }},
		{"SUBNET", func(r leaseRow) string { return r.Subnet }},
		{"KIND", func(r leaseRow) string { return r.Kind }},
		{"CONTAINER", func(r leaseRow) string { return r.Container }},
		{"MAC", func(r leaseRow) string { return r.MAC }},
		{"NODE", func(r leaseRow) string { return ledger.ShortID(r.Node) }},
		{"SINCE", func(r leaseRow) string { return since(r.Since) }},
	})
}

// leaseRows returns the leases of the pool that is named, or of all. The container of a lease is the plugin's record or, where the engine did
// not tell the plugin, the engine's.
func (v *view) leaseRows(cmd *cobra.Command, names []string) ([]leaseRow, error) {
	pools, err := v.pools(cmd.Context())
	if err != nil {
		return nil, err
	}
	var rows []leaseRow
	found := len(names) == 0
	for _, p := range pools {
		if len(names) > 0 && !v.isPool(p, names[0]) {
			continue
		}
		found = true
		leases, err := v.leases(cmd.Context(), p.ID, "")
		if err != nil {
			return nil, err
		}
		for _, l := range leases {
			rows = append(rows, v.leaseRow(p, l))
		}
	}
	if !found {
		return nil, fmt.Errorf("no pool %q; passthroughctl pools lists them", names[0])
	}
	return rows, nil
}

// leaseRow returns a lease of a pool, with what the engine knows of it.
func (v *view) leaseRow(p admin.Pool, l admin.Lease) leaseRow {
	if at, ok := v.attachmentOf(l.Address, p.Networks); ok {
		l.Container, l.MAC = at.container, at.mac
	}
	return leaseRow{l, p.ID, p.Subnet}
}

// leasesOf returns the leases of an address, in all pools.
func (v *view) leasesOf(cmd *cobra.Command, addr netip.Addr) ([]leaseRow, error) {
	pools, err := v.pools(cmd.Context())
	if err != nil {
		return nil, err
	}
	var rows []leaseRow
	for _, p := range pools {
		if subnet, err := netip.ParsePrefix(p.Subnet); err != nil || !subnet.Contains(addr) {
			continue
		}
		leases, err := v.leases(cmd.Context(), p.ID, addr.String())
		if err != nil {
			return nil, err
		}
		for _, l := range leases {
			rows = append(rows, v.leaseRow(p, l))
		}
	}
	return rows, nil
}

// isPool returns true if text names a pool.
func (v *view) isPool(p admin.Pool, text string) bool {
	if text == p.Name || text == p.Subnet || strings.HasPrefix(p.ID, text) && text != "" {
		return true
	}
	for _, id := range p.Networks {
		if text == v.names[id] || text == id {
			return true
		}
	}
	return false
}

// attachmentOf returns the container that has an address on one of these networks. If the networks of its pool are not known, any network
// counts, as long as one container alone has the address.
func (v *view) attachmentOf(addr string, networks []string) (at attachment, ok bool) {
	found := 0
	for _, a := range v.containers {
		if !slices.Contains(a.addrs, addr) || len(networks) > 0 && !slices.Contains(networks, a.network) {
			continue
		}
		at = a
		found++
	}
	return at, found == 1
}
