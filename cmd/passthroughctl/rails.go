package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/topology"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/option"
)

// A rail is a NIC with a network of its own, which has the rail's name. So has the device of a container.
type rail struct {
	Name   string   `json:"name"` // rail0
	NIC    string   `json:"nic"`
	PCI    string   `json:"pci,omitempty"`    // "" for a device that is on no bus
	NUMA   int      `json:"numa"`             // -1 for none
	Near   []string `json:"near,omitempty"`   // PCI addresses of the devices that it was chosen for
	Common string   `json:"common,omitempty"` // what it has in common with them
	Subnet string   `json:"subnet,omitempty"`
	Range  string   `json:"range,omitempty"` // the part of the subnet that is this host's
}

// railFlags are the flags of the command rails.
type railFlags struct {
	netdevice, mode, near  string
	count                  int // 0 for as many as there are
	subnet, host           string
	size                   int // prefix length of the subnets
	options                []string
	vf                     int // -1 for any
	commands, compose, cdi bool
	numbered               bool // names of devices end in a number of the engine's
}

// railsCommand chooses NICs for rails, and prints what makes networks of them.
func railsCommand(c *ctl) *cobra.Command {
	f := &railFlags{}
	cmd := &cobra.Command{
		Use: "rails", Short: "Choose NICs for rails: one for each GPU or NUMA node, each with a network of its own", Args: cobra.NoArgs,
		Long: "Choose NICs for rails, which are networks that a container is on at once, each with a NIC and a subnet of its own: one for each\n" +
			"GPU (--near gpu), one for each NUMA node (--near numa), those near to a device (--near 0000:3b:00.0), or all. NICs that are near\n" +
			"to the same GPUs are used after one of each, so that --count can take more. Without --netdevice the NICs are those of this\n" +
			"machine that can have VFs and are not without a link.\n" +
			"\nIt prints the choice, the commands that create the networks (--commands), or a Compose file of a service on all rails\n" +
			"(--compose), and changes nothing. It needs no plugin.\n" +
			"The devices of a container are called rail0, rail1, for which the engine has to be 29.8 or newer.",
		Example: "  passthroughctl rails --near gpu\n  passthroughctl rails --near gpu --subnet 10.10.0.0/16 --commands",
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := openHost()
			if err != nil {
				return err
			}
			rails, err := f.plan(host)
			if err != nil {
				return err
			}
			switch {
			case f.commands:
				return f.printCommands(cmd.OutOrStdout(), pluginName(c, cmd), rails)
			case f.compose:
				return f.printCompose(cmd.OutOrStdout(), pluginName(c, cmd), rails)
			}
			return write(cmd.OutOrStdout(), c.format, rails, used(rails, railColumns(), "SUBNET", "NEAR", "COMMON"))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.netdevice, "netdevice", "", "NICs to choose from, as the option netdevice has them")
	flags.StringVar(&f.mode, "mode", option.ModeSRIOV, "mode of the networks")
	flags.StringVar(&f.near, "near", "none", "what a NIC is chosen for: gpu, numa, the PCI address of a device, or none")
	flags.IntVar(&f.count, "count", 0, "number of rails (default: one NIC for each of what they are near to)")
	flags.StringVar(&f.subnet, "subnet", "", "IPv4 subnet that is split into those of the rails")
	flags.IntVar(&f.size, "size", 24, "prefix length of a rail's subnet")
	flags.StringVar(&f.host, "host", "", "which of how many hosts this one is, such as 3/16; it uses its part of each subnet (default: all)")
	flags.StringArrayVarP(&f.options, "opt", "o", nil, "option of each network, such as mtu=9000")
	flags.IntVar(&f.vf, "vf", -1, "index of the VF of each NIC that the service gets (default: any that is free)")
	flags.BoolVar(&f.cdi, "cdi", false, "give the service the RDMA files of its devices, by CDI")
	flags.BoolVar(&f.numbered, "numbered", false, "call the devices rail0_0, rail1_0, as engines before 29.8 can")
	flags.BoolVar(&f.commands, "commands", false, "print the commands that create the networks")
	flags.BoolVar(&f.compose, "compose", false, "print a Compose file of a service on all rails")
	cmd.MarkFlagsMutuallyExclusive("commands", "compose")
	return cmd
}

// railColumns returns the columns of a table of rails.
func railColumns() []column[rail] {
	return []column[rail]{
		{"RAIL", func(r rail) string { return r.Name }},
		{"NIC", func(r rail) string { return r.NIC }},
		{"PCI", func(r rail) string { return strings.TrimPrefix(r.PCI, "0000:") }},
		{"NUMA", func(r rail) string {
			if r.NUMA < 0 {
				return ""
			}
			return fmt.Sprint(r.NUMA)
		}},
		{"NEAR", func(r rail) string { return strings.Join(r.Near, ", ") }},
		{"COMMON", func(r rail) string { return r.Common }},
		{"SUBNET", func(r rail) string { return cmp.Or(r.Range, r.Subnet) }},
	}
}

// pluginName returns what the engine calls the plugin, or how the documentation installs it.
func pluginName(c *ctl, cmd *cobra.Command) string {
	_, socket, err := c.client()
	if err == nil {
		if name, err := driverName(cmd.Context(), admin.NewClient(c.engineSocket), socket); err == nil {
			return name
		}
	}
	return "passthrough:latest"
}

// plan returns the rails, with their subnets.
func (f *railFlags) plan(host *hw.Host) ([]rail, error) {
	switch {
	case f.count < 0 || f.vf < -1:
		return nil, errors.New("--count and --vf cannot be negative")
	case f.vf >= 0 && f.mode != option.ModeSRIOV:
		return nil, fmt.Errorf("--vf: with --mode %s there are no vfs to choose from", f.mode)
	case f.cdi && f.mode == option.ModeSRIOV && f.vf < 0:
		return nil, errors.New("--cdi: say also which vf, such as --vf 0: the engine reads the files before a vf is chosen")
	case f.subnet == "" && (f.commands || f.compose):
		return nil, errors.New("--subnet: missing; say what the subnets of the rails are taken from, such as --subnet 10.10.0.0/16")
	}
	if _, err := pairs("-o", f.options); err != nil {
		return nil, err
	}
	all, err := f.nics(host)
	if err != nil {
		return nil, err
	}
	rails, err := f.choose(host.Topology(), all)
	if err != nil {
		return nil, err
	}
	return rails, f.address(rails)
}

// nics returns the NICs that there are to choose from, as rails without names.
func (f *railFlags) nics(host *hw.Host) (all []rail, _ error) {
	if f.netdevice == "" && f.mode != option.ModeSRIOV {
		return nil, fmt.Errorf("--netdevice: missing; with --mode %s say which devices, such as --netdevice eth1,eth2", f.mode)
	}
	if f.netdevice == "" {
		nics, err := host.NICs()
		for _, n := range nics {
			if n.NoVFs == nil && (n.Carrier || !n.Up) { // one that is down is brought up
				all = append(all, rail{NIC: n.Name, PCI: n.ID.PCI(), NUMA: n.Node})
			}
		}
		if err == nil && len(all) == 0 {
			err = errors.New("no NIC of this machine can have VFs and has a link; passthroughctl nics says why")
		}
		return all, err
	}
	for term := range strings.SplitSeq(f.netdevice, ",") {
		found, err := f.named(host, strings.TrimSpace(term))
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			if !slices.ContainsFunc(all, func(have rail) bool { return have.NIC == r.NIC }) {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// named returns the NICs that a term of the option netdevice selects.
func (f *railFlags) named(host *hw.Host, term string) (found []rail, _ error) {
	if f.mode == option.ModeSRIOV {
		pfs, err := host.PFs(term)
		for _, pf := range pfs {
			found = append(found, rail{NIC: pf.Name, PCI: pf.PCI(), NUMA: pf.Node})
		}
		return found, err
	}
	n, err := host.Netdev(term)
	if err != nil {
		return nil, err
	}
	r := rail{NIC: n.Name, NUMA: -1}
	if n.ID.IsPCI() {
		r.PCI = n.ID.PCI()
		r.NUMA, err = host.Topology().Node(r.PCI)
	}
	return []rail{r}, err
}

// choose returns the rails: of the NICs that are near to the same, the nearest, then those with the lowest address; and as many as are wanted, or
// one for each of what NICs are as near to as any.
func (f *railFlags) choose(t topology.Topology, all []rail) ([]rail, error) {
	type candidate struct {
		rail
		group string // what it is near to
		far   topology.Distance
		turn  int // how many of its group come before it
	}
	to, err := f.wanted(t)
	if err != nil {
		return nil, err
	}
	var from []candidate
	for _, r := range all {
		c := candidate{rail: r, group: r.PCI + r.NIC}
		switch {
		case f.near == "numa":
			c.group = fmt.Sprintf("%08d", r.NUMA+1)
		case len(to) > 0:
			if c.Near, c.far, err = t.Nearest(r.PCI, to); err != nil {
				return nil, err
			}
			if c.Common = c.far.Level.String(); len(to) > 1 {
				c.group = strings.Join(c.Near, " ")
			}
		}
		from = append(from, c)
	}
	slices.SortStableFunc(from, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.far.Level, b.far.Level), cmp.Compare(a.group, b.group), a.far.Compare(b.far), cmp.Compare(a.PCI, b.PCI))
	})
	turns := map[string]int{}
	for i := range from {
		from[i].turn = turns[from[i].group]
		turns[from[i].group]++
	}
	slices.SortStableFunc(from, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.far.Level, b.far.Level), cmp.Compare(a.turn, b.turn))
	})
	var rails []rail
	for i, c := range from {
		if i == f.count && i > 0 || f.count == 0 && (c.turn > 0 || c.far.Level > from[0].far.Level) {
			break
		}
		c.Name = fmt.Sprintf("rail%d", i)
		rails = append(rails, c.rail)
	}
	if len(rails) < f.count {
		var names []string
		for _, r := range rails {
			names = append(names, r.NIC)
		}
		return nil, fmt.Errorf("--count %d: there are %d NICs to choose from: %s", f.count, len(rails), strings.Join(names, ", "))
	}
	return rails, nil
}

// wanted returns the PCI addresses of what the NICs are to be near to.
func (f *railFlags) wanted(t topology.Topology) ([]string, error) {
	switch f.near = strings.ToLower(f.near); f.near {
	case "none", "numa":
		return nil, nil
	case option.NearGPU:
		gpus, err := t.GPUs()
		if err == nil && len(gpus) == 0 {
			err = errors.New("--near gpu: this machine has no gpu")
		}
		return gpus, err
	}
	pci, ok := hw.ParsePCI(f.near)
	if !ok {
		return nil, fmt.Errorf("--near %s: must be gpu, numa, none or a PCI address", f.near)
	}
	_, err := t.Distance(pci, pci)
	return []string{pci}, err
}

// address gives the rails their subnets, and the parts of these that are this host's.
func (f *railFlags) address(rails []rail) error {
	if f.subnet == "" {
		return nil
	}
	pool, err := netip.ParsePrefix(f.subnet)
	if err != nil || !pool.Addr().Is4() || pool != pool.Masked() {
		return fmt.Errorf("--subnet %s: must be an IPv4 subnet in CIDR form", f.subnet)
	}
	if f.size < pool.Bits() || f.size > 30 || len(rails) > 1<<(f.size-pool.Bits()) {
		return fmt.Errorf("--size %d: %s has no %d subnets of that length", f.size, pool, len(rails))
	}
	part, parts, err := f.part()
	if err != nil {
		return err
	}
	bits := f.size + bits.Len(uint(parts-1))
	if bits > 30 {
		return fmt.Errorf("--host %s: a /%d has no part for each of %d hosts", f.host, f.size, parts)
	}
	for i := range rails {
		subnet := nth(pool, f.size, i)
		if rails[i].Subnet = subnet.String(); parts > 1 {
			rails[i].Range = nth(subnet, bits, part-1).String()
		}
	}
	return nil
}

// part returns which of how many hosts this one is, from 1.
func (f *railFlags) part() (part, parts int, _ error) {
	if f.host == "" {
		return 1, 1, nil
	}
	which, many, _ := strings.Cut(f.host, "/")
	part, err := strconv.Atoi(which)
	parts, errMany := strconv.Atoi(many)
	if cmp.Or(err, errMany) != nil || part < 1 || part > parts {
		return 0, 0, fmt.Errorf("--host %s: must be a number and how many hosts there are, such as 3/16", f.host)
	}
	return part, parts, nil
}

// nth returns the n-th subnet, from 0, of those with a length that an IPv4 subnet is split into.
func nth(of netip.Prefix, bits, n int) netip.Prefix {
	first := of.Addr().As4()
	binary.BigEndian.PutUint32(first[:], binary.BigEndian.Uint32(first[:])+uint32(n)<<(32-bits))
	return netip.PrefixFrom(netip.AddrFrom4(first), bits)
}

// railSysctls are what a container needs on each of several interfaces: it answers ARP requests for an address, and asks, only with the interface
// that has the address, and takes packets that come back another way (Documentation/networking/ip-sysctl.rst, Linux 6.12).
const railSysctls = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_ignore=1,net.ipv4.conf.IFNAME.arp_announce=2," +
	"net.ipv4.conf.IFNAME.rp_filter=2"

// networkOptions returns the options of a rail's network, KEY=VALUE.
func (f *railFlags) networkOptions(r rail) []string {
	name := "ifname=" + r.Name
	if f.numbered {
		name = "prefix=" + r.Name + "_"
	}
	all := []string{"netdevice=" + r.NIC, name}
	if f.mode != option.ModeSRIOV {
		all = append(all, "mode="+f.mode)
	}
	if f.cdi {
		all = append(all, "cdi="+r.Name)
	}
	return append(all, f.options...)
}

// ownOptions returns the options of a container on a rail, KEY=VALUE.
func (f *railFlags) ownOptions() []string {
	if f.vf < 0 {
		return []string{railSysctls}
	}
	return []string{railSysctls, fmt.Sprintf("vf=%d", f.vf)}
}

// device returns the name of the CDI device with the files of a container's device on a rail.
func (f *railFlags) device(r rail) string {
	if f.mode != option.ModeSRIOV {
		return "mellanox.com/" + r.Name + "=nic"
	}
	return fmt.Sprintf("mellanox.com/%s=vf%d", r.Name, f.vf)
}

// about says in a comment what a rail is.
func (r rail) about() string {
	text := r.Name + ": " + r.NIC
	if r.PCI != "" {
		text += " (" + r.PCI + ")"
	}
	if r.NUMA >= 0 {
		text += fmt.Sprintf(", NUMA node %d", r.NUMA)
	}
	if len(r.Near) > 0 {
		text += fmt.Sprintf("; %s: %s", strings.Join(r.Near, ", "), r.Common)
	}
	return text
}

// printCommands prints the commands that create the networks, and in a comment how a container is run on them.
func (f *railFlags) printCommands(w io.Writer, driver string, rails []rail) error {
	var b strings.Builder
	run := "# docker run --ulimit memlock=-1"
	for _, r := range rails {
		fmt.Fprintf(&b, "# %s\ndocker network create -d %s --ipam-driver %s --subnet=%s", r.about(), driver, driver, r.Subnet)
		if r.Range != "" {
			fmt.Fprintf(&b, " --ip-range=%s", r.Range)
		}
		for _, o := range f.networkOptions(r) {
			fmt.Fprintf(&b, " -o %s", quoted(o))
		}
		fmt.Fprintf(&b, " %s\n", r.Name)
		run += " --network 'name=" + r.Name
		for _, o := range f.ownOptions() {
			run += fmt.Sprintf(`,"driver-opt=%s"`, o)
		}
		run += "'"
		if f.cdi {
			run += " --device " + f.device(r)
		}
	}
	_, err := fmt.Fprintf(w, "%s%s IMAGE\n", b.String(), run)
	return err
}

// quoted returns a text as one word of a shell's command.
func quoted(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\"'$&|;<>()*?[]~#`\\!{}", r) }) {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}

// printCompose prints a Compose file of a service on all rails.
func (f *railFlags) printCompose(w io.Writer, driver string, rails []rail) error {
	var b strings.Builder
	b.WriteString("services:\n  job:\n    image: ${IMAGE:-busybox}\n    command: sleep 1000000\n    stop_signal: SIGKILL\n" +
		"    ulimits:\n      memlock: -1 # RDMA programs lock their buffers\n" +
		"    # volumes: [\"/dev/hugepages:/dev/hugepages\"]\n")
	if f.cdi {
		b.WriteString("    devices:\n")
		for _, r := range rails {
			fmt.Fprintf(&b, "      - %s\n", f.device(r))
		}
	}
	b.WriteString("    networks:\n")
	for _, r := range rails {
		fmt.Fprintf(&b, "      %s:\n        driver_opts:\n", r.Name)
		yamlPairs(&b, "          ", f.ownOptions())
	}
	b.WriteString("\nnetworks:\n")
	for _, r := range rails {
		fmt.Fprintf(&b, "  # %s\n  %s:\n    driver: %s\n    driver_opts:\n", r.about(), r.Name, driver)
		yamlPairs(&b, "      ", f.networkOptions(r))
		fmt.Fprintf(&b, "    ipam:\n      driver: %s\n      config:\n        - subnet: %s\n", driver, r.Subnet)
		if r.Range != "" {
			fmt.Fprintf(&b, "          ip_range: %s\n", r.Range)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlPairs writes KEY=VALUE pairs as a map of texts.
func yamlPairs(b *strings.Builder, indent string, pairs []string) {
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		fmt.Fprintf(b, "%s%s: '%s'\n", indent, key, strings.ReplaceAll(value, "'", "''"))
	}
}
