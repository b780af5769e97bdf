package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/option"
)

// kind is that of the owners that this program speaks for.
const kind = "cni"

// An attachment is what one command is about.
type attachment struct {
	*config
	*target
	args *skel.CmdArgs
}

// command returns the function of a command. away is the code of the error that the plugin process does not answer.
func command(run func(*attachment, context.Context) error, away uint) func(*skel.CmdArgs) error {
	return func(a *skel.CmdArgs) error {
		c, err := parse(a.StdinData, a.Args)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), callBound)
		defer cancel()
		t, err := open(c, a)
		if err == nil {
			err = run(t, ctx)
		}
		return c.coded(err, away)
	}
}

// coded gives an error the code that a runtime decides by (CNI spec, "Error"). What another plugin has said keeps its own.
func (c *config) coded(err error, away uint) error {
	var said *types.Error
	var unanswered *net.OpError
	code := uint(types.ErrInternal)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said):
		if said == err { // one inside another would be printed without what is around it
			return err
		}
		code = said.Code
	case errors.As(err, &unanswered), errors.Is(err, admin.ErrNoSocket), errors.Is(err, context.DeadlineExceeded):
		code = away
	default: // the process has refused the options, if that is what it takes for the reason
		if _, wrong := option.Parse(c.options); wrong != nil {
			code = types.ErrInvalidNetworkConfig
		}
		for _, name := range slices.Sorted(maps.Keys(c.options)) {
			if !option.Known(name) {
				return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("passthrough-cni: key %s, value %q: %v", name, c.options[name], err), "")
			}
		}
	}
	return types.NewError(code, "passthrough-cni: "+strings.TrimPrefix(err.Error(), "passthrough-cni: "), "")
}

// open finds the plugin process.
func open(c *config, a *skel.CmdArgs) (*attachment, error) {
	to, err := newTarget(c.Socket, kind, a.ContainerID, a.Netns, a.IfName)
	if err != nil {
		return nil, err
	}
	// The plugin of the addresses reads the same variable, and may refuse what this one takes.
	if err := os.Setenv("CNI_ARGS", strings.TrimSuffix("IgnoreUnknown=1;"+a.Args, ";")); err != nil {
		return nil, err
	}
	return &attachment{c, to, a}, nil
}

// add gives a container its device.
func (t *attachment) add(ctx context.Context) error {
	ns, err := rtnl.OpenNetns(t.args.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "passthrough-cni: "+err.Error(), "")
	}
	defer ns.Close()
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: t.DNS}
	if t.delegates() && !t.needsLink() {
		err = t.delegate(ctx, res)
	}
	if err != nil {
		return err
	}
	if err := t.attach(ctx, ns, res); err != nil {
		return errors.Join(err, t.releaseAddresses(ctx))
	}
	return nil
}

// needsLink returns whether the plugin that chooses the addresses uses the container's link for that: the one of DHCP asks servers through it. With
// another one the process has the addresses before the container has the link.
func (c *config) needsLink() bool { return c.IPAM.Type == "dhcp" }

// releaseAddresses has the plugin that chose the container's addresses release them, if nothing has them: a device that is not detached, such
// as that of an ADD before this one, keeps its own.
func (t *attachment) releaseAddresses(ctx context.Context) error {
	if !t.delegates() {
		return nil
	}
	if at, err := t.attached(ctx); err != nil || at.ID != "" {
		return err
	}
	return invoke.DelegateDel(ctx, t.IPAM.Type, t.args.StdinData, nil)
}

// delegate has another plugin choose the addresses.
func (t *attachment) delegate(ctx context.Context, res *current.Result) error {
	got, err := invoke.DelegateAdd(ctx, t.IPAM.Type, t.args.StdinData, nil)
	if err != nil {
		return fmt.Errorf("ipam %s: %w", t.IPAM.Type, err)
	}
	of, err := current.NewResultFromResult(got)
	if err == nil && len(of.IPs) == 0 {
		err = errors.New("it gave no address")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ipam %s: %w", t.IPAM.Type, err), t.releaseAddresses(ctx))
	}
	res.IPs, res.Routes = of.IPs, of.Routes
	if res.DNS.IsEmpty() {
		res.DNS = of.DNS
	}
	return nil
}

// attach attaches the device, configures it, and prints the result.
func (t *attachment) attach(ctx context.Context, ns *rtnl.Netns, res *current.Result) error {
	r := admin.AttachRequest{Network: t.Name, Options: t.options, Own: t.own, Container: t.pod, IPAM: t.pools, Addresses: t.requested}
	for _, ip := range res.IPs {
		r.Addresses = append(r.Addresses, ip.Address.String())
	}
	return t.target.attach(ctx, ns, r, func(at *admin.Attachment) error {
		if t.needsLink() {
			if err := ns.Configure(t.ifName, nil, nil); err != nil { // it is up then
				return err
			}
			if err := t.delegate(ctx, res); err != nil {
				return err
			}
		}
		if err := t.configure(ns, at, res); err != nil {
			return err
		}
		return types.PrintResult(res, t.CNIVersion)
	})
}

// chosen completes a result with the addresses that the process has chosen.
func (t *attachment) chosen(at *admin.Attachment, res *current.Result) error {
	for _, text := range at.Addresses {
		a, subnet, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		ip := &current.IPConfig{Address: net.IPNet{IP: a, Mask: subnet.Mask}}
		for _, gw := range at.Gateways {
			if g := net.ParseIP(gw); (g.To4() == nil) == (a.To4() == nil) {
				ip.Gateway = g
			}
		}
		res.IPs = append(res.IPs, ip)
	}
	res.Routes = t.routes
	return nil
}

// configure sets addresses and routes, and completes the result.
func (t *attachment) configure(ns *rtnl.Netns, at *admin.Attachment, res *current.Result) error {
	if t.pools != nil {
		if err := t.chosen(at, res); err != nil {
			return err
		}
	}
	for _, r := range at.Routes {
		_, dst, err := net.ParseCIDR(r.Dst)
		if err != nil {
			return err
		}
		res.Routes = append(res.Routes, &types.Route{Dst: *dst, GW: net.ParseIP(r.Via)})
	}
	var addrs []hw.Addr
	for _, ip := range res.IPs {
		ip.Interface = current.Int(0)
		addrs = append(addrs, hw.Addr{CIDR: ip.Address.String()})
	}
	var routes []hw.Route
	for _, r := range res.Routes {
		routes = append(routes, routeOf(r, res.IPs))
	}
	l, err := t.target.configure(ns, addrs, routes)
	pci := hw.ID(at.ID).PCI()
	res.Interfaces = []*current.Interface{{Name: l.Name, Mac: string(l.MAC), Mtu: l.MTU, Sandbox: t.args.Netns, PciID: pci}}
	return err
}

// routeOf returns a route of a result. One without a gateway has that of the addresses of its family (CNI spec, "routes").
func routeOf(r *types.Route, ips []*current.IPConfig) hw.Route {
	gw := r.GW
	for _, ip := range ips {
		if gw == nil && ip.Gateway != nil && (ip.Gateway.To4() == nil) == (r.Dst.IP.To4() == nil) {
			gw = ip.Gateway
		}
	}
	via := ""
	if gw != nil {
		via = gw.String()
	}
	route := routeTo(r.Dst.String(), via)
	route.Metric, route.MTU = r.Priority, r.MTU
	if r.Table != nil {
		route.Table = *r.Table
	}
	return route
}

// del takes a container's device. It succeeds if that has none, or no network namespace any more.
func (t *attachment) del(ctx context.Context) error {
	if t.needsLink() {
		err := invoke.DelegateDel(ctx, t.IPAM.Type, t.args.StdinData, nil)
		return errors.Join(t.release(ctx), err)
	}
	if err := t.release(ctx); err != nil {
		return err
	}
	return t.releaseAddresses(ctx)
}

// check compares a container's device with what add has printed.
func (t *attachment) check(ctx context.Context) error {
	if t.delegates() {
		if err := invoke.DelegateCheck(ctx, t.IPAM.Type, t.args.StdinData, nil); err != nil {
			return err
		}
	}
	at, err := t.attached(ctx)
	if err != nil {
		return err
	}
	ns, err := rtnl.OpenNetns(t.args.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, addrs, err := ns.Link(t.args.IfName)
	if err != nil {
		return err
	}
	switch {
	case at.ID == "":
		return fmt.Errorf("%s has no device", t.owner)
	case !l.Up:
		return fmt.Errorf("%s is down", t.args.IfName)
	case at.Name != "":
		return fmt.Errorf("%s is in the host as %s", at.Label, at.Name)
	}
	expected, err := t.expected()
	if err != nil {
		return err
	}
	for _, want := range append(expected, at.Addresses...) {
		if !slices.ContainsFunc(addrs, func(have hw.Addr) bool { return strings.EqualFold(have.CIDR, want) }) {
			return fmt.Errorf("%s does not have the address %s", t.args.IfName, want)
		}
	}
	return nil
}

// expected returns the addresses that the link has by the results of all plugins, those of this one and of others in a chain.
func (t *attachment) expected() (addresses []string, _ error) {
	if t.RawPrevResult == nil {
		return nil, nil
	}
	if err := cniversion.ParsePrevResult(&t.PluginConf); err != nil {
		return nil, invalid("prevResult: %v", err)
	}
	of, err := current.NewResultFromResult(t.PrevResult)
	if err != nil {
		return nil, invalid("prevResult: %v", err)
	}
	for _, ip := range of.IPs {
		if i := ip.Interface; i == nil || *i < 0 || *i >= len(of.Interfaces) || of.Interfaces[*i].Name != t.args.IfName || of.Interfaces[*i].Sandbox != t.args.Netns {
			continue // not of this link, or of a version that does not say
		}
		addresses = append(addresses, ip.Address.String())
	}
	return addresses, nil
}

// status reports whether the process answers.
func (t *attachment) status(ctx context.Context) error {
	var s admin.Status
	if err := t.client.Call(ctx, admin.StatusCall, struct{}{}, &s); err != nil {
		return err
	}
	if t.delegates() {
		return invoke.DelegateStatus(ctx, t.IPAM.Type, t.args.StdinData, nil)
	}
	return nil
}

// gc detaches what the runtime does not have any more of the network. What is in a container's network namespace still is free when that ends.
func (t *attachment) gc(ctx context.Context) error {
	var s admin.Status
	if err := t.client.Call(ctx, admin.StatusCall, struct{}{}, &s); err != nil {
		return err
	}
	valid, ours := map[string]bool{}, map[string]bool{}
	for _, v := range append(t.ValidAttachments, t.Attachments...) {
		valid[v.ContainerID+"/"+v.IfName] = true
	}
	for _, n := range s.Networks {
		ours[n.ID] = n.Owner == kind && n.Name == t.Name
	}
	var errs []error
	for _, d := range s.Devices {
		if d.Owner == nil || d.Owner.Kind != kind || !ours[d.Network] || valid[d.Owner.ID] {
			continue
		}
		var none struct{}
		errs = append(errs, t.client.Call(ctx, admin.DetachCall, admin.Owner{Kind: kind, ID: d.Owner.ID}, &none))
	}
	if t.delegates() {
		errs = append(errs, invoke.DelegateGC(ctx, t.IPAM.Type, t.args.StdinData, nil))
	}
	return errors.Join(errs...)
}
