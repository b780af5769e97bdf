package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jaypipes/pcidb"
	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
)

// A nicRow is a line of the command nics.
type nicRow struct {
	Name     string `json:"name"`
	PCI      string `json:"pci"`
	Vendor   string `json:"vendor"` // name, or the PCI ID
	Model    string `json:"model"`  // likewise
	Driver   string `json:"driver"`
	Link     string `json:"link"`  // down (set down), no carrier, or up
	Speed    int    `json:"speed"` // Mbit/s, 0 for unknown
	MAC      string `json:"mac"`
	NUMA     int    `json:"numa"` // -1 for none
	TotalVFs int    `json:"total_vfs"`
	NumVFs   int    `json:"num_vfs"`
	NoVFs    string `json:"no_vfs,omitempty"` // why it can have none
	Kind     string `json:"kind,omitempty"`   // of what is on a NIC: sub-function, vdpa device
	// Networks are those that use it or its VFs; nil without a plugin.
	Networks []string      `json:"networks,omitempty"`
	RDMA     []rdma.Device `json:"rdma,omitempty"`
}

// nicsCommand lists the NICs.
func (c *ctl) nicsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nics", Short: "List the NICs: model, driver, link, and how many VFs each has and can have", Args: cobra.NoArgs,
		Example: "  passthroughctl nics\n  passthroughctl nics -f json",
		Long: "List the NICs of this machine. VFS is how many VFs a NIC has, of how many it can have; \"no\" if it can have none, with the\n" +
			"reason. RDMA names its RDMA devices, if any NIC has one. Sub-functions and vDPA devices on a NIC follow, with what they can be\n" +
			"used for. It needs no plugin; where there is one, it says which networks use a NIC.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := openHost()
			if err != nil {
				return err
			}
			rows, err := nicRows(host, openRDMA())
			if err != nil {
				return err
			}
			users := c.nicUsers(cmd)
			for i := range rows {
				rows[i].Networks = users[rows[i].Name]
			}
			return write(cmd.OutOrStdout(), c.format, rows, used(rows, []column[nicRow]{
				{"NIC", func(r nicRow) string { return r.Name }},
				{"PCI", func(r nicRow) string { return strings.TrimPrefix(r.PCI, "0000:") }},
				{"MODEL", func(r nicRow) string { return shorten(r.Model, 26) }},
				{"DRIVER", func(r nicRow) string { return r.Driver }},
				{"LINK", func(r nicRow) string { return r.Link + speedText(r.Speed) }},
				{"VFS", nicRow.vfs},
				{rdmaColumn, func(r nicRow) string { return rdmaText(r.RDMA) }},
				{"NOTE", nicRow.note},
			}, rdmaColumn))
		},
	}
}

// nicUsers returns the names of the networks that use a NIC, by its name; none without a plugin.
func (c *ctl) nicUsers(cmd *cobra.Command) map[string][]string {
	users := map[string][]string{}
	if _, _, err := c.client(); err != nil {
		return users
	}
	v, err := c.view(cmd)
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "passthroughctl: which networks use a NIC is not known: %v\n", err)
		return users
	}
	for _, n := range v.status.Networks {
		for _, device := range n.Devices {
			users[device] = append(users[device], v.network(n.ID))
		}
	}
	return users
}

// note says which networks use a NIC, or why it can have no VFs.
func (r nicRow) note() string {
	if len(r.Networks) == 0 {
		return r.NoVFs
	}
	return "used by " + strings.Join(r.Networks, ", ")
}

// vfs returns how many VFs a NIC has of how many it can have.
func (r nicRow) vfs() string {
	if r.NoVFs != "" {
		return "no"
	}
	return fmt.Sprintf("%d/%d", r.NumVFs, r.TotalVFs)
}

// speedText returns a speed as text that follows the state of the link.
func speedText(mbits int) string {
	switch {
	case mbits == 0:
		return ""
	case mbits%1000 == 0:
		return fmt.Sprintf(" %dG", mbits/1000)
	}
	return fmt.Sprintf(" %dM", mbits)
}

// shorten shortens a text to n characters.
func shorten(text string, n int) string {
	if len(text) > n {
		return text[:n-1] + "~"
	}
	return text
}

// nicRows reads the NICs, and what their drivers have made on them besides VFs.
func nicRows(host *hw.Host, r *rdma.Host) ([]nicRow, error) {
	nics, err := host.NICs()
	if err != nil {
		return nil, err
	}
	derived, err := host.Derived()
	if err != nil {
		return nil, err
	}
	devices, err := r.Devices()
	if err != nil {
		return nil, err
	}
	names, err := pcidb.New() // it reads the host's pci.ids, and fetches nothing
	if err != nil {
		names = &pcidb.PCIDB{} // a host without that file: the IDs stay
	}
	var rows []nicRow
	for _, n := range nics {
		row := newNICRow(n, names)
		row.RDMA = rdma.Of(devices, n.ID.PCI(), n.Index)
		rows = append(rows, row)
	}
	for _, d := range derived {
		rows = append(rows, newDerivedRow(d))
	}
	return rows, nil
}

// newDerivedRow returns the line of a sub-function or vDPA device.
func newDerivedRow(d hw.Derived) nicRow {
	r := nicRow{Name: d.Name, PCI: d.PCI, Model: strings.TrimSpace(string(d.Kind) + " " + d.Number), Driver: d.Driver, NUMA: -1,
		NoVFs: d.What(), Kind: string(d.Kind)}
	if d.Netdev.Index != 0 {
		r.Name, r.Link, r.MAC = d.Netdev.Name, linkState(d.Netdev.Link), string(d.Netdev.MAC)
	}
	return r
}

// newNICRow returns the line of a NIC.
func newNICRow(n hw.NIC, names *pcidb.PCIDB) nicRow {
	r := nicRow{Name: n.Name, PCI: n.ID.PCI(), Vendor: n.Vendor, Model: n.Vendor + ":" + n.Device, Driver: n.Driver, Link: linkState(n.Link),
		Speed: n.Speed, MAC: string(n.MAC), NUMA: n.Node, TotalVFs: n.TotalVFs, NumVFs: n.NumVFs}
	if v := names.Vendors[n.Vendor]; v != nil {
		r.Vendor = v.Name
	}
	if p := names.Products[n.Vendor+n.Device]; p != nil {
		r.Model = p.Name
	}
	if n.NoVFs != nil {
		r.NoVFs = reason(n.NoVFs)
	}
	return r
}

// reason returns what an error of package hw says, without the name of the device.
func reason(err error) string {
	var of *hw.Error
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// linkState returns the state of a link.
func linkState(l hw.Link) string {
	switch {
	case !l.Up:
		return "down"
	case !l.Carrier:
		return "no carrier"
	}
	return "up"
}
