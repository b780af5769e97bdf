package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
)

// planExample is an example of the command.
const planExample = "  passthroughctl plan network create -d passthrough:latest -o netdevice=eth1 n"

// planCommand has the command plan network create. A line of docker may be given as it is: plan docker network create.
func (c *ctl) planCommand() *cobra.Command {
	plan := &cobra.Command{Use: "plan", Short: "Say what a docker command would do, and change nothing", Example: planExample}
	docker := &cobra.Command{Use: "docker", Hidden: true}
	for _, parent := range []*cobra.Command{plan, docker} {
		network := &cobra.Command{Use: "network", Short: "Say what docker network create would do", Example: planExample}
		network.AddCommand(c.planCreateCommand())
		parent.AddCommand(network)
	}
	plan.AddCommand(docker)
	return plan
}

// networkFlags are those of docker network create that the plugin hears of.
type networkFlags struct {
	driver, ipamDriver, scope, configFrom     string
	options, ipamOptions, aux                 []string // KEY=VALUE
	subnets, ranges, gateways                 []string
	ipv4, ipv6, internal, configOnly, ingress bool
}

// planCreateCommand answers what docker network create would do.
func (c *ctl) planCreateCommand() *cobra.Command {
	f := &networkFlags{}
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Say what docker network create would do with these arguments",
		Long: "Say what docker network create would do with these arguments: the devices, what is done to the NIC and the host, the pools and\n" +
			"gateways, or with which error it would be refused; then the exit status is 1. The plugin makes the checks of the command itself,\n" +
			"and changes nothing. What only a try on a VF shows is said to be tried when the network is created.",
		Example: planExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("docker network create takes one name, here are %d: %s; a value with a space in it needs quotes", len(args),
					strings.Join(args, " "))
			}
			return nil
		},
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			r, err := f.request(cmd, c, v, args[0])
			if err != nil {
				return err
			}
			var p admin.Plan
			if err := v.plugin.Call(cmd.Context(), admin.PlanCall, r, &p); err != nil {
				return err
			}
			if c.format == "table" {
				err = printFacts(cmd.OutOrStdout(), planFacts(args[0], &p))
			} else {
				err = write(cmd.OutOrStdout(), c.format, []admin.Plan{p}, nil)
			}
			if err == nil && p.Refused != "" {
				err = fmt.Errorf("refused: %s", p.Refused)
			}
			return err
		}),
	}
	f.add(cmd)
	return cmd
}

// add adds the flags to a command, as docker has them (docker/cli, command/network/create.go).
func (f *networkFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.driver, "driver", "d", "bridge", "driver of the network")
	flags.StringArrayVarP(&f.options, "opt", "o", nil, "option of the driver")
	flags.StringVar(&f.ipamDriver, "ipam-driver", "default", "driver of addresses")
	flags.StringArrayVar(&f.ipamOptions, "ipam-opt", nil, "option of the driver of addresses")
	flags.StringSliceVar(&f.subnets, "subnet", nil, "subnet in CIDR form")
	flags.StringSliceVar(&f.ranges, "ip-range", nil, "part of a subnet from which containers get addresses")
	flags.StringSliceVar(&f.gateways, "gateway", nil, "gateway of a subnet")
	flags.StringArrayVar(&f.aux, "aux-address", nil, "address that no container gets")
	flags.BoolVar(&f.ipv4, "ipv4", true, "IPv4 addresses")
	flags.BoolVar(&f.ipv6, "ipv6", false, "IPv6 addresses")
	flags.BoolVar(&f.internal, "internal", false, "no gateway")
	flags.StringVar(&f.scope, "scope", "", "scope of the network")
	flags.StringVar(&f.configFrom, "config-from", "", "network from which the configuration is taken")
	flags.BoolVar(&f.configOnly, "config-only", false, "only a configuration")
	flags.BoolVar(&f.ingress, "ingress", false, "the routing mesh of a swarm")
	flags.Bool("attachable", false, "containers outside of services may use it")
	flags.StringArray("label", nil, "label of the network")
}

// request returns what the plugin is asked. It refuses what the engine itself would refuse, as far as it concerns this plugin.
func (f *networkFlags) request(cmd *cobra.Command, c *ctl, v *view, name string) (*admin.PlanRequest, error) {
	for _, known := range v.names {
		if known == name {
			return nil, fmt.Errorf("network with name %s already exists", name)
		}
	}
	switch {
	case f.configOnly:
		return nil, errors.New("with --config-only no driver is asked, and any option is accepted; plan the network that is created from it")
	case f.configFrom != "":
		return nil, fmt.Errorf("--config-from %s: give the options of that network instead", f.configFrom)
	case f.ingress:
		return nil, errors.New("--ingress is for the driver overlay")
	}
	own, err := driverName(cmd.Context(), admin.NewClient(c.engineSocket), v.socket)
	if err != nil {
		return nil, fmt.Errorf("what the engine calls the plugin is not known: %w", err)
	}
	if f.driver != own {
		return nil, fmt.Errorf("driver %q is not this plugin, which the engine calls %q: say -d %s", f.driver, own, own)
	}
	r := &admin.PlanRequest{OwnIPAM: f.ipamDriver == own, IPv4: f.ipv4, IPv6: f.ipv6, Internal: f.internal}
	if bare, _, _ := strings.Cut(own, ":"); f.ipamDriver == bare && !r.OwnIPAM {
		return nil, fmt.Errorf("--ipam-driver %q: the engine calls the plugin %q", f.ipamDriver, own)
	}
	if r.Options, err = pairs("-o", f.options); err != nil {
		return nil, err
	}
	if r.IPAMOptions, err = pairs("--ipam-opt", f.ipamOptions); err != nil {
		return nil, err
	}
	r.Subnets, err = f.together()
	return r, err
}

// pairs returns the values of a flag that are KEY=VALUE.
func pairs(flag string, values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, fmt.Errorf("%s %s: must be KEY=VALUE", flag, v)
		}
		all[key] = value
	}
	return all, nil
}

// together returns the subnets, each with the range, gateway and auxiliary addresses that are in it (docker/cli, createIPAMConfig).
func (f *networkFlags) together() ([]admin.Subnet, error) {
	var all []admin.Subnet
	for _, s := range f.subnets {
		if slices.ContainsFunc(all, func(have admin.Subnet) bool { return contains(have.Subnet, s) || contains(s, have.Subnet) }) {
			return nil, errors.New("multiple overlapping subnet configuration is not supported")
		}
		all = append(all, admin.Subnet{Subnet: s, Aux: map[string]string{}})
	}
	of := func(text string) int {
		return slices.IndexFunc(all, func(s admin.Subnet) bool { return contains(s.Subnet, text) })
	}
	for _, flag := range []struct {
		what, on string
		values   []string
		field    func(*admin.Subnet) *string
	}{
		{"range", "on", f.ranges, func(s *admin.Subnet) *string { return &s.Range }},
		{"gateway", "for", f.gateways, func(s *admin.Subnet) *string { return &s.Gateway }},
	} {
		for _, value := range flag.values {
			i := of(value)
			if i < 0 {
				return nil, fmt.Errorf("no matching subnet for %s %s", flag.what, value)
			}
			have := flag.field(&all[i])
			if *have != "" {
				return nil, fmt.Errorf("cannot configure multiple %ss (%s, %s) %s the same subnet (%s)", flag.what, value, *have, flag.on, all[i].Subnet)
			}
			*have = value
		}
	}
	aux, err := pairs("--aux-address", f.aux)
	for name, a := range aux {
		i := of(a)
		if i < 0 {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", a)
		}
		all[i].Aux[name] = a
	}
	return all, err
}

// contains reports whether an address, or the first of a subnet, is in a subnet.
func contains(subnet, text string) bool {
	p, err := netip.ParsePrefix(subnet)
	if err != nil {
		return false
	}
	addr, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(addr)
	return err == nil && p.Contains(a)
}

// planFacts returns a plan for people.
func planFacts(name string, p *admin.Plan) []fact {
	var e explanation
	if p.Mode == "" { // it was not looked at
		return nil
	}
	e.add("network", "%s, mode %s, on %s", name, p.Mode, strings.Join(p.Devices, ", "))
	for _, of := range p.Pools {
		e.add("pool", "%s, %d of %d addresses are free for containers", of.Subnet, of.Size-uint64(of.Leased), of.Size)
	}
	if len(p.Gateways) > 0 {
		e.add("gateway", "%s", strings.Join(p.Gateways, ", "))
	} else {
		e.add("gateway", "none")
	}
	for _, s := range p.Steps {
		e.add("then", "%s", s)
	}
	for _, s := range p.Untried {
		e.add("not known", "%s", s)
	}
	return e.Facts
}

// printFacts prints facts, a line each.
func printFacts(w io.Writer, facts []fact) error {
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "%-10s %s\n", f.Subject, f.Text); err != nil {
			return err
		}
	}
	return nil
}
