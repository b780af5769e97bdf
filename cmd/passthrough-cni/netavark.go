package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
)

// podman is the kind of the owners for whom netavark calls.
const podman = "podman"

// routeMetric is that of a route that has none, as netavark's own drivers have it: of several networks with a gateway, the first is used.
const routeMetric = 100

// A podmanNetwork is what podman says of a network.
type podmanNetwork struct {
	Name      string
	Interface string `json:"network_interface"`
	Internal  bool
	Options   map[string]string
	IPAM      map[string]string `json:"ipam_options"`
	Subnets   []struct {
		Subnet  netip.Prefix
		Gateway netip.Addr
	}
	Routes []struct {
		Destination netip.Prefix
		Gateway     netip.Addr
		Metric      *int
		Type        string `json:"route_type"`
	}
}

// A podmanContainer is what podman says of a container on a network.
type podmanContainer struct {
	ID      string `json:"container_id"`
	Name    string `json:"container_name"`
	Network podmanNetwork
	On      struct {
		IfName  string       `json:"interface_name"`
		IPs     []netip.Addr `json:"static_ips"` // which podman has chosen
		MAC     string       `json:"static_mac"`
		Options map[string]string
	} `json:"network_options"`
}

// A podmanStatus is what setup answers.
type podmanStatus struct {
	DNSDomains []string                   `json:"dns_search_domains"`
	DNSServers []string                   `json:"dns_server_ips"`
	Interfaces map[string]podmanInterface `json:"interfaces"`
}

// A podmanInterface is a device in a container.
type podmanInterface struct {
	MAC     string          `json:"mac_address"`
	Subnets []podmanAddress `json:"subnets"`
}

// A podmanAddress is an address of a device.
type podmanAddress struct {
	Gateway *netip.Addr  `json:"gateway"`
	Net     netip.Prefix `json:"ipnet"` // the address with its prefix length
}

// netavark runs a command of a plugin of netavark's (API 1.0.0), and returns its exit status. The text of an error is what podman shows.
func netavark(args []string, in io.Reader, out io.Writer) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	answer, err := runNetavark(ctx, args, in)
	if err != nil {
		answer, code = map[string]string{"error": err.Error()}, 1
	}
	if answer != nil {
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return 1
		}
	}
	return code
}

// runNetavark returns the answer to a command; nil for none.
func runNetavark(ctx context.Context, args []string, in io.Reader) (any, error) {
	if args[0] == "info" {
		return map[string]string{"version": version, "api_version": "1.0.0"}, nil
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	if args[0] == "create" {
		return createNetwork(ctx, text)
	}
	if len(args) != 2 {
		return nil, fmt.Errorf("%s: wants the path of a network namespace", args[0])
	}
	c := &podmanContainer{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, err
	}
	if args[0] == "setup" {
		return c.setup(ctx, args[1])
	}
	return nil, c.teardown(ctx, args[1])
}

// createNetwork checks a network and answers what podman shall record of it: what podman said, without DNS, which netavark has on bridges alone.
func createNetwork(ctx context.Context, text []byte) (any, error) {
	var n podmanNetwork
	var all map[string]any
	if err := errors.Join(json.Unmarshal(text, &n), json.Unmarshal(text, &all)); err != nil {
		return nil, err
	}
	if err := n.check(ctx); err != nil {
		return nil, err
	}
	ipam := map[string]string{"driver": "host-local"}
	if len(n.Subnets) == 0 {
		ipam["driver"] = "none"
	}
	maps.Copy(ipam, n.IPAM)
	all["ipam_options"], all["dns_enabled"] = ipam, false
	return all, nil
}

// check refuses a network whose containers could not start.
func (n *podmanNetwork) check(ctx context.Context) error {
	families := map[bool]netip.Prefix{}
	for _, s := range n.Subnets {
		v4 := s.Subnet.Addr().Is4()
		if other, there := families[v4]; there {
			return fmt.Errorf("subnet %s: %s is there already; one of each family is possible", s.Subnet, other)
		}
		families[v4] = s.Subnet
	}
	for _, r := range n.Routes {
		if r.Type != "" && r.Type != "unicast" {
			return fmt.Errorf("route %s: type %s is not possible", r.Destination, r.Type)
		}
	}
	for _, name := range []string{"prefix", "ifname"} {
		if _, given := n.Options[name]; given {
			return fmt.Errorf("option %s: podman names the device: --network NETWORK:interface_name=NAME", name)
		}
	}
	switch driver := n.IPAM["driver"]; {
	case n.Interface != "":
		return fmt.Errorf("interface %s: this driver takes the device from -o netdevice=NAME", n.Interface)
	case driver == "dhcp":
		return errors.New("ipam driver dhcp: podman has it for its own drivers alone; use --subnet, or --ipam-driver none")
	case driver == "host-local" && len(n.Subnets) == 0:
		return errors.New("ipam driver host-local: needs --subnet")
	}
	t, err := n.target("", "", "")
	if err != nil {
		return err
	}
	var plan admin.Plan
	if err = t.client.Call(ctx, admin.PlanCall, admin.PlanRequest{Options: n.options()}, &plan); err == nil && plan.Refused != "" {
		err = errors.New(plan.Refused)
	}
	return err
}

// target returns where the device of a container on the network goes.
func (n *podmanNetwork) target(container, netns, ifName string) (*target, error) {
	return newTarget(n.Options["socket"], podman, container, netns, ifName)
}

// options returns those that are for the process.
func (n *podmanNetwork) options() map[string]string {
	options := maps.Clone(n.Options)
	delete(options, "socket") // of the process
	return options
}

// target returns where the container's device goes.
func (c *podmanContainer) target(netns string) (*target, error) {
	return c.Network.target(c.ID, netns, c.On.IfName)
}

// setup gives a container its device.
func (c *podmanContainer) setup(ctx context.Context, netns string) (*podmanStatus, error) {
	addrs, err := c.addresses()
	if err != nil {
		return nil, err
	}
	t, err := c.target(netns)
	if err != nil {
		return nil, err
	}
	ns, err := rtnl.OpenNetns(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := t.endEarlier(ctx); err != nil {
		return nil, err
	}
	r := admin.AttachRequest{Network: c.Network.Name, Options: c.Network.options(), Own: maps.Clone(c.On.Options), Container: c.Name}
	if c.On.MAC != "" {
		if r.Own == nil {
			r.Own = map[string]string{}
		}
		r.Own["mac"] = c.On.MAC
	}
	var onLink []hw.Addr
	for _, a := range addrs {
		r.Addresses = append(r.Addresses, a.Net.String())
		onLink = append(onLink, hw.Addr{CIDR: a.Net.String()})
	}
	var l hw.Link
	err = t.attach(ctx, ns, r, func(at *admin.Attachment) (err error) {
		l, err = t.configure(ns, onLink, c.routes(at, addrs))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &podmanStatus{Interfaces: map[string]podmanInterface{c.On.IfName: {MAC: string(l.MAC), Subnets: addrs}}}, nil
}

// addresses returns the container's, with the subnets that they are in.
func (c *podmanContainer) addresses() ([]podmanAddress, error) {
	all := []podmanAddress{}
	for _, ip := range c.On.IPs {
		bits := 0
		a := podmanAddress{}
		for _, s := range c.Network.Subnets {
			if s.Subnet.Contains(ip) {
				bits = s.Subnet.Bits()
				if gw := s.Gateway; gw.IsValid() && !c.Network.Internal {
					a.Gateway = &gw
				}
			}
		}
		if bits == 0 {
			return nil, fmt.Errorf("address %s: network %s has no subnet with it", ip, c.Network.Name)
		}
		a.Net = netip.PrefixFrom(ip, bits)
		all = append(all, a)
	}
	return all, nil
}

// routes returns the routes that a container has: the process's own, those of podman's network, and through its gateways unless the option
// gateway is none.
func (c *podmanContainer) routes(at *admin.Attachment, addrs []podmanAddress) (routes []hw.Route) {
	for _, r := range at.Routes {
		routes = append(routes, routeTo(r.Dst, r.Via))
	}
	for _, r := range c.Network.Routes {
		via := ""
		if r.Gateway.IsValid() {
			via = r.Gateway.String()
		}
		route := routeTo(r.Destination.String(), via)
		route.Metric = routeMetric
		if r.Metric != nil {
			route.Metric = *r.Metric
		}
		routes = append(routes, route)
	}
	for _, a := range addrs {
		if a.Gateway != nil && c.Network.Options["gateway"] != "none" {
			route := routeTo(map[bool]string{true: "0.0.0.0/0", false: "::/0"}[a.Net.Addr().Is4()], a.Gateway.String())
			route.Metric = routeMetric
			routes = append(routes, route)
		}
	}
	return routes
}

// processBound is how long teardown waits for a process that does not answer, such as one that is being replaced: podman does not repeat it.
const processBound = 20 * time.Second

// teardown takes a container's device. It succeeds if that has none, or no network namespace any more.
func (c *podmanContainer) teardown(ctx context.Context, netns string) (err error) {
	_ = retry.Poll(ctx, 200*time.Millisecond, processBound, func() (bool, error) {
		var t *target
		var away *net.OpError
		if t, err = c.target(netns); err != nil {
			return false, nil
		}
		err = t.release(ctx)
		return !errors.As(err, &away), nil
	})
	return err
}

// endEarlier detaches what the container had in a network namespace that is gone: it may be started again without a teardown.
func (t *target) endEarlier(ctx context.Context) error {
	at, err := t.attached(ctx)
	if err != nil || at.Owner == nil {
		return err
	}
	now, err := hw.NamespaceAt(at.Owner.Netns)
	if errors.Is(err, hw.ErrNotFound) || err == nil && now != (hw.Namespace{Device: at.Owner.Device, Inode: at.Owner.Inode}) {
		return t.detach(ctx, nil)
	}
	return err
}
