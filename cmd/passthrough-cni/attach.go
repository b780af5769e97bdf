package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
)

// kind is that of the owners that this program speaks for.
const kind = "cni"

// callBound bounds one command. The process answers each call within 10 seconds unless it was told otherwise.
const callBound = time.Minute

// An attachment is what one command is about.
type attachment struct {
	*config
	args   *skel.CmdArgs
	client *admin.Client
}

// open reads what a command is about, and finds the plugin process.
func open(a *skel.CmdArgs) (*attachment, error) {
	c, err := parse(a.StdinData, a.Args)
	if err != nil {
		return nil, err
	}
	socket := c.Socket
	if socket == "" {
		if socket, err = admin.FindSocket(); err != nil {
			return nil, types.NewError(types.ErrPluginNotAvailable, "passthrough-cni: "+err.Error(), "")
		}
	}
	// The plugin of the addresses reads the same variable, and may refuse what this one takes.
	if err := os.Setenv("CNI_ARGS", strings.TrimSuffix("IgnoreUnknown=1;"+a.Args, ";")); err != nil {
		return nil, err
	}
	return &attachment{c, a, admin.NewClient(socket)}, nil
}

// owner returns for whom the attachment is.
func (t *attachment) owner() admin.Owner {
	return admin.Owner{Kind: kind, ID: t.args.ContainerID + "/" + t.args.IfName}
}

// homeName returns the name under which a device is moved home: no other link has it.
func (t *attachment) homeName() string {
	return fmt.Sprintf("pc%x", sha256.Sum256([]byte(t.owner().ID)))[:14]
}

// delegates reports whether another plugin chooses the addresses.
func (t *attachment) delegates() bool { return t.IPAM.Type != "" }

// add gives a container its device.
func add(a *skel.CmdArgs) (err error) {
	t, err := open(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	ns, err := rtnl.OpenSpace(a.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "passthrough-cni: "+err.Error(), "")
	}
	defer ns.Close()
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: t.DNS}
	if t.delegates() {
		if err := t.delegate(ctx, res); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, invoke.DelegateDel(ctx, t.IPAM.Type, a.StdinData, nil))
			}
		}()
	}
	return t.attach(ctx, ns, res)
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
		return errors.Join(fmt.Errorf("ipam %s: %w", t.IPAM.Type, err), invoke.DelegateDel(ctx, t.IPAM.Type, t.args.StdinData, nil))
	}
	res.IPs, res.Routes = of.IPs, of.Routes
	if res.DNS.IsEmpty() {
		res.DNS = of.DNS
	}
	return nil
}

// attach attaches the device, moves and configures it, and prints the result. What fails is undone.
func (t *attachment) attach(ctx context.Context, ns *rtnl.Space, res *current.Result) error {
	id, err := hw.NamespaceAt(t.args.Netns)
	if err != nil {
		return err
	}
	r := admin.AttachRequest{Owner: t.owner(), Network: t.Name, Options: t.options, Own: t.own, Container: t.pod}
	r.Owner.Netns, r.Owner.Device, r.Owner.Inode = t.args.Netns, id.Device, id.Inode
	for _, ip := range res.IPs {
		r.Addresses = append(r.Addresses, ip.Address.String())
	}
	var at admin.Attachment
	if err := t.client.Call(ctx, admin.AttachCall, r, &at); err != nil {
		return err
	}
	err = ns.Take(at.Index, at.Name, t.args.IfName)
	if err == nil {
		if err = t.configure(ns, &at, res); err == nil {
			err = types.PrintResult(res, t.CNIVersion)
		}
	}
	if err != nil {
		return errors.Join(err, t.detach(ctx, ns))
	}
	return nil
}

// configure sets addresses and routes, and completes the result.
func (t *attachment) configure(ns *rtnl.Space, at *admin.Attachment, res *current.Result) error {
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
	slices.SortStableFunc(routes, func(a, b hw.Route) int { return min(len(a.Gateway), 1) - min(len(b.Gateway), 1) })
	if err := ns.Configure(t.args.IfName, addrs, routes); err != nil {
		return err
	}
	l, _, err := ns.Link(t.args.IfName)
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
	route := hw.Route{Dst: r.Dst.String(), Metric: r.Priority, MTU: r.MTU}
	if gw != nil {
		route.Gateway = gw.String()
	} else if r.Dst.IP.To4() != nil {
		route.Scope = 253 // RT_SCOPE_LINK
	}
	if r.Table != nil {
		route.Table = *r.Table
	}
	return route
}

// detach moves the device home, and gives it back to the process. Nothing there is no error.
func (t *attachment) detach(ctx context.Context, ns *rtnl.Space) error {
	var err error
	if ns != nil {
		err = ns.GiveBack(t.args.IfName, t.homeName())
	}
	var none struct{}
	return errors.Join(err, t.client.Call(ctx, admin.DetachCall, t.owner(), &none))
}

// del takes a container's device. It succeeds if that has none, or no network namespace any more.
func del(a *skel.CmdArgs) error {
	t, err := open(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	var ns *rtnl.Space
	if a.Netns != "" {
		if ns, err = rtnl.OpenSpace(a.Netns); err == nil {
			defer ns.Close()
		} else if !errors.Is(err, hw.ErrNotFound) {
			return err
		}
	}
	var at admin.Attachment
	if t.client.Call(ctx, admin.CheckCall, t.owner(), &at) != nil {
		ns = nil // the link with that name is another's
	}
	err = t.detach(ctx, ns)
	if t.delegates() {
		err = errors.Join(err, invoke.DelegateDel(ctx, t.IPAM.Type, a.StdinData, nil))
	}
	return err
}

// check compares a container's device with what add has printed.
func check(a *skel.CmdArgs) error {
	t, err := open(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	if t.delegates() {
		if err := invoke.DelegateCheck(ctx, t.IPAM.Type, a.StdinData, nil); err != nil {
			return err
		}
	}
	var at admin.Attachment
	if err := t.client.Call(ctx, admin.CheckCall, t.owner(), &at); err != nil {
		return err
	}
	ns, err := rtnl.OpenSpace(a.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, addrs, err := ns.Link(a.IfName)
	if err != nil {
		return err
	}
	switch {
	case !l.Up:
		return fmt.Errorf("%s is down", a.IfName)
	case at.Name != "":
		return fmt.Errorf("%s is in the host as %s", at.Label, at.Name)
	}
	for _, want := range at.Addresses {
		if !slices.ContainsFunc(addrs, func(have hw.Addr) bool { return strings.EqualFold(have.CIDR, want) }) {
			return fmt.Errorf("%s does not have the address %s", a.IfName, want)
		}
	}
	return nil
}

// status reports whether the process answers.
func status(a *skel.CmdArgs) error {
	t, err := open(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	var s admin.Status
	if err := t.client.Call(ctx, admin.StatusCall, struct{}{}, &s); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "passthrough-cni: "+err.Error(), "")
	}
	if t.delegates() {
		return invoke.DelegateStatus(ctx, t.IPAM.Type, a.StdinData, nil)
	}
	return nil
}

// gc detaches what the runtime does not have any more of the network. What is in a container's network namespace still is free when that ends.
func gc(a *skel.CmdArgs) error {
	t, err := open(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	var s admin.Status
	if err := t.client.Call(ctx, admin.StatusCall, struct{}{}, &s); err != nil {
		return err
	}
	valid := map[string]bool{}
	for _, v := range t.ValidAttachments {
		valid[v.ContainerID+"/"+v.IfName] = true
	}
	ours := map[string]bool{}
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
		errs = append(errs, invoke.DelegateGC(ctx, t.IPAM.Type, a.StdinData, nil))
	}
	return errors.Join(errs...)
}
