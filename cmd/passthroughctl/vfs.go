package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/internal/admin"
)

// A vfRow is a line of the command vfs.
type vfRow struct {
	PF        string `json:"pf"` // name
	VF        int    `json:"vf"` // index
	PCI       string `json:"pci"`
	Driver    string `json:"driver"`
	State     string `json:"state"` // free, host, or that of a device of [admin.Status]
	Reason    string `json:"reason,omitempty"`
	Since     string `json:"since,omitempty"`
	Container string `json:"container,omitempty"`
	Network   string `json:"network,omitempty"`
	VLAN      int    `json:"vlan"`
	MAC       string `json:"mac,omitempty"` // as the PF has set it
	Spoofchk  bool   `json:"spoofchk"`
	Trust     bool   `json:"trust"`
	MaxTxRate int    `json:"max_tx_rate"` // Mbit/s, 0 for no limit
	LinkState string `json:"link_state"`
	// Counters are those of the PF's driver, nil if it has counted nothing.
	Counters *vfCounters   `json:"counters,omitempty"`
	RDMA     []rdma.Device `json:"rdma,omitempty"`
	RDMAAway bool          `json:"rdma_away,omitempty"` // it has an RDMA device, which is in another network namespace
	// Representor is the VF's port of the NIC's switch on the host, "" unless the NIC is in switchdev mode.
	Representor string `json:"representor,omitempty"`
	netdev      int    // ifindex, 0 for none in the host
}

// vfCounters has what a PF's driver has counted of a VF.
type vfCounters struct {
	RxBytes   uint64 `json:"rx_bytes"`
	TxBytes   uint64 `json:"tx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	TxPackets uint64 `json:"tx_packets"`
	RxDropped uint64 `json:"rx_dropped"` // packets
	TxDropped uint64 `json:"tx_dropped"`
}

// vfsCommand lists VFs.
func (c *ctl) vfsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "vfs [PF]", Short: "List the VFs: who has each, and what its PF has set for it", Args: cobra.MaximumNArgs(1),
		Example: "  passthroughctl vfs\n  passthroughctl vfs enp1s0",
		Long: "List the VFs of a PF, or of all PFs of this machine. The state of a VF is free, host (the host itself uses it), or one of the\n" +
			"plugin's: claimed and ready before a container has it, lent while it has it, freeing afterwards, quarantined with the reason\n" +
			"if it could not be restored.",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			host, err := openHost()
			if err != nil {
				return err
			}
			rows, err := v.vfRows(host, openRDMA(), args)
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), c.format, rows, used(rows, []column[vfRow]{
				{"VF", func(r vfRow) string { return fmt.Sprintf("%s/%d", r.PF, r.VF) }},
				{"PCI", func(r vfRow) string { return strings.TrimPrefix(r.PCI, "0000:") }},
				{"STATE", func(r vfRow) string { return r.State }},
				{"CONTAINER", func(r vfRow) string { return r.Container }},
				{"NETWORK", func(r vfRow) string { return r.Network }},
				{"VLAN", func(r vfRow) string { return number(r.VLAN) }},
				{"MAC", func(r vfRow) string { return r.MAC }},
				{rdmaColumn, vfRow.rdma},
				{"REPRESENTOR", func(r vfRow) string { return r.Representor }},
				{"REASON", func(r vfRow) string { return r.Reason }},
			}, rdmaColumn, "REPRESENTOR", "REASON"))
		}),
	}
}

// rdma names the RDMA devices of a VF.
func (r vfRow) rdma() string {
	if r.RDMAAway {
		return "away"
	}
	return rdmaText(r.RDMA)
}

// number returns a number, "" for 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// vfRows returns the VFs of the PF that is named, or of all PFs.
func (v *view) vfRows(host *hw.Host, r *rdma.Host, names []string) (rows []vfRow, err error) {
	var pfs []hw.PF
	if len(names) > 0 {
		pf, err := host.PF(names[0])
		if err != nil {
			return nil, err
		}
		pfs = []hw.PF{pf}
	} else if pfs, err = allPFs(host); err != nil {
		return nil, err
	}
	for _, pf := range pfs {
		of, err := v.vfsOf(host, pf)
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
	}
	return rows, addRDMA(rows, r)
}

// addRDMA adds to VFs their RDMA devices.
func addRDMA(rows []vfRow, r *rdma.Host) error {
	devices, err := r.Devices()
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].RDMA = rdma.Of(devices, rows[i].PCI, rows[i].netdev)
		if rows[i].RDMAAway, err = r.Away(rows[i].PCI); err != nil {
			return err
		}
	}
	return nil
}

// allPFs returns the PFs that have VFs.
func allPFs(host *hw.Host) ([]hw.PF, error) {
	nics, err := host.NICs()
	if err != nil {
		return nil, err
	}
	var pfs []hw.PF
	for _, n := range nics {
		if pf, err := host.PF(n.Name); err == nil && pf.NumVFs > 0 {
			pfs = append(pfs, pf)
		}
	}
	return pfs, nil
}

// vfsOf returns the VFs of one PF.
func (v *view) vfsOf(host *hw.Host, pf hw.PF) ([]vfRow, error) {
	vfs, err := host.VFs(pf)
	if err != nil {
		return nil, err
	}
	states, err := host.VFStates(pf)
	if err != nil {
		return nil, err
	}
	counted, err := host.VFCounters(pf)
	if err != nil {
		return nil, err
	}
	ports, err := host.Representors(pf)
	if err != nil {
		return nil, err
	}
	var rows []vfRow
	for _, vf := range vfs {
		s := states[vf.Index]
		row := vfRow{Representor: ports[vf.Index].Name, PF: pf.Name, VF: vf.Index, PCI: vf.PCI, netdev: vf.Netdev.Index, Driver: vf.Driver, State: "free", VLAN: s.VLAN.ID, MAC: string(s.MAC),
			Spoofchk: s.Spoofchk, Trust: s.Trust, MaxTxRate: s.Rate.Max, LinkState: s.LinkMode.String()}
		if d := v.deviceByID(string(vf.ID())); d != nil {
			row.State, row.Reason, row.Since = d.State, quarantineReason(*d), since(d.Since)
			row.Container, row.Network = v.container(d.Endpoint), v.network(d.Network)
		} else if slices.Contains(v.status.Programs, string(vf.ID())) {
			row.Reason = "is kept for programs by a network with driver and cdi"
		} else if taken, err := host.Taken(vf); err != nil || taken != "" {
			row.State, row.Reason = "host", taken
		}
		if n, ok := counted[vf.Index]; ok {
			row.Counters = &vfCounters{n.RxBytes, n.TxBytes, n.RxPackets, n.TxPackets, n.RxDropped, n.TxDropped}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// quarantineReason says why a device is quarantined, and when it is tried again; "" for one that is not.
func quarantineReason(d admin.Device) string {
	if d.Reason == "" || d.Retry.IsZero() {
		return d.Reason
	}
	return d.Reason + "; next try in " + span(time.Until(d.Retry))
}

// deviceByID returns a device that is not free, nil for none.
func (v *view) deviceByID(id string) *admin.Device {
	for i := range v.status.Devices {
		if v.status.Devices[i].ID == id {
			return &v.status.Devices[i]
		}
	}
	return nil
}
