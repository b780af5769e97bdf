package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// A whoRow is a device with its container and addresses.
type whoRow struct {
	Container string   `json:"container"`
	State     string   `json:"state"` // of the device
	Network   string   `json:"network"`
	Device    string   `json:"device"`
	ID        string   `json:"id"` // as retry and free take it
	PCI       string   `json:"pci,omitempty"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	endpoint  string
	networkID string
	owner     admin.Owner // the zero value for an engine
}

// whoCommand finds the device that something belongs to.
func (c *ctl) whoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "who ADDRESS|MAC|PCI|CONTAINER|NETWORK", Short: "Find who has an address, a MAC or a device", Args: cobra.ExactArgs(1),
		Long: "Find who has an address, a MAC or a device on this machine. An address that no device of this machine has is looked up in the\n" +
			"address pools: it may be a gateway's, in cooldown, or that of a container of another network driver or another node.",
		Example: "  passthroughctl who 10.1.0.7\n  passthroughctl who 02:bf:90:96:a1:27\n  passthroughctl who 0000:02:10.4\n  passthroughctl who web1",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			rows := slices.DeleteFunc(v.whoRows(), func(r whoRow) bool { return !r.is(args[0]) })
			if addr, err := netip.ParseAddr(args[0]); err == nil && len(rows) == 0 {
				leases, err := v.leasesOf(cmd, addr)
				if err != nil {
					return err
				}
				if len(leases) > 0 {
					return c.writeLeases(cmd, leases)
				}
			}
			if len(rows) == 0 {
				return fmt.Errorf("nothing on this machine has %q; passthroughctl vfs and leases list all", args[0])
			}
			return write(cmd.OutOrStdout(), c.format, rows, []column[whoRow]{
				{"CONTAINER", func(r whoRow) string { return r.Container }},
				{"NETWORK", func(r whoRow) string { return r.Network }},
				{"DEVICE", func(r whoRow) string { return r.Device }},
				{"MAC", func(r whoRow) string { return r.MAC }},
				{"ADDRESSES", func(r whoRow) string { return strings.Join(r.Addresses, ",") }},
			})
		}),
	}
}

// whoRows returns all devices that are not free.
func (v *view) whoRows() []whoRow {
	var rows []whoRow
	for _, d := range v.status.Devices {
		rows = append(rows, v.whoRow(d))
	}
	return rows
}

// whoRow returns a device with what the engine knows of its endpoint.
func (v *view) whoRow(d admin.Device) whoRow {
	r := whoRow{Container: v.container(d.Endpoint), State: d.State, Network: v.network(d.Network), Device: d.Label, ID: d.ID, PCI: hw.ID(d.ID).PCI(),
		MAC: d.MAC, Addresses: d.Addrs, endpoint: d.Endpoint, networkID: d.Network}
	if d.Owner != nil {
		r.owner = *d.Owner
	}
	at := v.containers[d.Endpoint]
	r.MAC = cmp.Or(r.MAC, at.mac)
	if len(r.Addresses) == 0 {
		r.Addresses = at.addrs
	}
	return r
}

// is returns true if text is something that the row has.
func (r whoRow) is(text string) bool {
	switch text = strings.ToLower(text); text {
	case strings.ToLower(r.Container), strings.ToLower(r.Network), strings.ToLower(r.Device), strings.TrimPrefix(r.PCI, "0000:"), r.PCI,
		strings.ToLower(r.MAC), strings.ToLower(r.owner.Name), strings.ToLower(r.owner.ID), r.networkID, r.endpoint, ledger.ShortID(r.endpoint):
		return text != ""
	}
	return slices.ContainsFunc(r.Addresses, func(a string) bool {
		addr, _, _ := strings.Cut(a, "/")
		return text == a || text == addr
	})
}
