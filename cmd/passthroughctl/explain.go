package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/topology"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// An explanation is everything that is known of a container on one network, a fact for each line.
type explanation struct {
	Container string `json:"container"`
	Network   string `json:"network"`
	Facts     []fact `json:"facts"`
	// Problems are facts that contradict each other.
	Problems []string `json:"problems"`
}

// A fact has a subject, such as "device", and what is true of it.
type fact struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// add adds a fact.
func (e *explanation) add(subject, format string, args ...any) {
	e.Facts = append(e.Facts, fact{subject, fmt.Sprintf(format, args...)})
}

// explainCommand explains a container.
func (c *ctl) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain CONTAINER", Short: "Say everything about a container: device, NIC, VF settings, addresses", Args: cobra.ExactArgs(1),
		Example: "  passthroughctl explain web1",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			pools, err := v.pools(cmd.Context())
			if err != nil {
				return err
			}
			host, err := openHost()
			if err != nil {
				return err
			}
			var all []explanation
			for _, r := range v.whoRows() {
				if r.Container == args[0] || r.endpoint == args[0] || ledger.ShortID(r.endpoint) == args[0] {
					all = append(all, v.explain(cmd, host, pools, r))
				}
			}
			if len(all) == 0 {
				return fmt.Errorf("container %q has no device of the plugin; passthroughctl status lists those that have one", args[0])
			}
			if c.format != "table" {
				return write(cmd.OutOrStdout(), c.format, all, nil)
			}
			for _, e := range all {
				if err := e.print(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

// explain explains one container on one network.
func (v *view) explain(cmd *cobra.Command, host *hw.Host, pools []admin.Pool, r whoRow) explanation {
	e := explanation{Container: r.Container, Network: r.Network, Problems: []string{}}
	at, known := v.containers[r.endpoint]
	d := v.device(r.endpoint)
	if d != nil && d.Owner != nil {
		known, at.state = true, "in "+d.Owner.Netns
	}
	e.add("container", "%s, %s; endpoint %s", r.Container, cmp.Or(at.state, "not known to the engine"), ledger.ShortID(r.endpoint))
	if !known && v.containers != nil {
		e.Problems = append(e.Problems, "the engine has no running container on this endpoint")
	}
	var wanted string
	for _, n := range v.status.Networks {
		if n.ID == r.networkID {
			wanted = n.Options["near"]
			e.add("network", "%s (%s): %s", r.Network, ledger.ShortID(n.ID), optionsText(n.Options))
		}
	}
	if d == nil {
		return e
	}
	e.add("device", "%s, %s for %s", d.Label, d.State, since(d.Since))
	if d.Lost != "" {
		e.Problems = append(e.Problems, v.lostProblem(*d))
	}
	if d.PF != "" {
		e.explainVF(host, d)
		e.explainPlace(host.Topology(), d.PF, wanted)
	} else if d.Parent != "" {
		e.add("parent", "%s", d.Parent)
	}
	if r.MAC != "" {
		e.add("mac", "%s", r.MAC)
	}
	if d.Before != "" {
		e.add("put back", "%s", d.Before)
	}
	for _, a := range r.Addresses {
		e.add("address", "%s%s", a, v.leaseOf(cmd, pools, r, a))
	}
	if addrs := plain(d.Addrs); known && d.Owner == nil && len(addrs) > 0 && !slices.Equal(addrs, slices.Sorted(slices.Values(at.addrs))) {
		e.Problems = append(e.Problems, fmt.Sprintf("the engine has the addresses %s", strings.Join(at.addrs, ", ")))
	}
	return e
}

// plain returns addresses without prefix lengths, in order.
func plain(addrs []string) []string {
	var all []string
	for _, a := range addrs {
		addr, _, _ := strings.Cut(a, "/")
		all = append(all, addr)
	}
	slices.Sort(all)
	return all
}

// optionsText returns options as they are written in a command line.
func optionsText(options map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		all = append(all, name+"="+options[name])
	}
	return strings.Join(all, " ")
}

// explainVF adds what the NIC has for a VF.
func (e *explanation) explainVF(host *hw.Host, d *admin.Device) {
	pf, vf, err := host.VF(d.PF, d.VF, hw.ID(d.ID))
	if err != nil {
		e.Problems = append(e.Problems, err.Error())
		return
	}
	e.add("nic", "%s, driver %s, link %s, mtu %d, %d of %d VFs", pf, pf.Driver, linkState(pf.Link), pf.MTU, pf.NumVFs, pf.TotalVFs)
	if !pf.Up || !pf.Carrier {
		e.Problems = append(e.Problems, fmt.Sprintf("the link of %s is %s: its VFs reach nothing outside of the NIC", pf.Name, linkState(pf.Link)))
	}
	where := "in the container"
	if vf.Netdev.Index != 0 {
		where = "in the host as " + vf.Netdev.Name
	} else if group, err := host.IOMMUGroup(vf.ID()); err == nil && group != "" {
		where = "for a program, by /dev/vfio/" + group
	}
	e.add("vf", "driver %s, %s", cmp.Or(vf.Driver, "none"), where)
	if d.State == string(alloc.Lent) && vf.Netdev.Index != 0 && d.Lost == "" {
		e.Problems = append(e.Problems, "the VF's netdev is in the host, although a container should have it")
	}
	e.explainPort(host, pf, vf, d)
	states, err := host.VFStates(pf)
	if err != nil {
		e.Problems = append(e.Problems, err.Error())
		return
	}
	e.add("nic sets", "%s", states[vf.Index].Describe())
	counted, err := host.VFCounters(pf)
	if err != nil {
		e.Problems = append(e.Problems, err.Error())
	}
	if n, ok := counted[vf.Index]; ok {
		e.add("counters", "%s", countersText(n))
	}
}

// explainPlace adds how far a PF is from the device that its network is to be near to, or from the GPUs of the machine.
func (e *explanation) explainPlace(t topology.Topology, pf, wanted string) {
	of, err := t.GPUs()
	if pci, ok := hw.ParsePCI(wanted); ok {
		of = []string{pci}
	}
	near, d, nearErr := t.Nearest(pf, of)
	if err = cmp.Or(err, nearErr); err != nil {
		e.Problems = append(e.Problems, err.Error())
	}
	if len(near) > 0 {
		e.add("near", "%s: %s", strings.Join(near, ", "), d.Level)
	}
}

// explainPort adds the representor of a VF, if its PF is in switchdev mode.
func (e *explanation) explainPort(host *hw.Host, pf hw.PF, vf hw.VF, d *admin.Device) {
	ports, err := host.Representors(pf)
	if err != nil {
		e.Problems = append(e.Problems, err.Error())
		return
	}
	n, ok := ports[vf.Index]
	switch {
	case !ok && d.Representor == "":
		return
	case !ok:
		e.Problems = append(e.Problems, fmt.Sprintf("the VF's representor, %s, is not in the host any more", d.Representor))
		return
	}
	in := "in no bridge"
	if master, err := host.NameOf(n.Master); err != nil || master != "" {
		in = "a port of " + cmp.Or(master, "a bridge that cannot be read")
	}
	if vlans, err := host.PortVLANs(n); err == nil { // otherwise it is the port of no bridge of the kernel's own
		in += ", vlans " + vlans.String()
	}
	e.add("representor", "%s, %s, %s", n.Name, linkState(n.Link), in)
	if d.State == string(alloc.Lent) && !n.Up {
		e.Problems = append(e.Problems, fmt.Sprintf("the VF's representor is down, and so is the VF's link: ip link set %s up", n.Name))
	}
}

// countersText returns what a NIC has counted of a VF as text.
func countersText(c hw.Counters) string {
	return fmt.Sprintf("received %d packets (%d bytes, %d dropped), sent %d (%d bytes, %d dropped)", c.RxPackets, c.RxBytes, c.RxDropped, c.TxPackets,
		c.TxBytes, c.TxDropped)
}

// leaseOf returns what the IPAM driver says of an address of a container on a network, as the end of a line; "" if it is another driver's.
func (v *view) leaseOf(cmd *cobra.Command, pools []admin.Pool, r whoRow, address string) string {
	addr, _, _ := strings.Cut(address, "/")
	for _, p := range pools {
		if !slices.Contains(p.Networks, r.networkID) {
			continue
		}
		leases, err := v.leases(cmd.Context(), p.ID, addr)
		if err != nil {
			return fmt.Sprintf(" (its lease cannot be read: %v)", err)
		}
		for _, l := range leases {
			if l.Address == addr {
				return fmt.Sprintf(" of pool %s (%s), %s, leased %s ago", ledger.ShortID(p.ID), p.Subnet, l.Kind, since(l.Since))
			}
		}
	}
	return ""
}

// print prints the explanation for people.
func (e explanation) print(w io.Writer) error {
	facts := slices.Clone(e.Facts)
	for _, p := range e.Problems {
		facts = append(facts, fact{"problem", p})
	}
	if err := printFacts(w, facts); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
