package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/mellanox/passthrough/ipamdrv/remote"
)

// commandTime bounds one command. A runtime that waits longer than the server needs is told the server's reason.
const commandTime = 20 * time.Second

// A config is what a network's configuration says.
type config struct {
	types.PluginConf
	// Attachments is another name that the specification has had for ValidAttachments.
	Attachments []types.GCAttachment `json:"cni.dev/attachments"`
	IPAM        struct {
		Type      string       `json:"type"`
		Remote    string       `json:"remote"`
		CA        string       `json:"ca"`
		Cert      string       `json:"cert"`
		Key       string       `json:"key"`
		TokenFile string       `json:"tokenFile"`
		Network   string       `json:"network"` // at the server, if it has another name there
		Subnet    netip.Prefix `json:"subnet"`
		DataDir   string       `json:"dataDir"`
	} `json:"ipam"`
	RuntimeConfig struct {
		MAC string   `json:"mac"`
		IPs []string `json:"ips"` // with or without a prefix length
	} `json:"runtimeConfig"`
}

// args are the CNI_ARGS that mean something. CORES is for the plugin that delegates, and so are vf and vlan.
type args struct {
	types.CommonArgs
	PodID, HostIP, IP               types.UnmarshallableString
	MAC                             types.UnmarshallableString
	CORES                           types.UnmarshallableString
	K8S_POD_NAMESPACE, K8S_POD_NAME types.UnmarshallableString
	K8S_POD_INFRA_CONTAINER_ID      types.UnmarshallableString
	K8S_POD_UID                     types.UnmarshallableString
}

// An attachment is what one command is about.
type attachment struct {
	*config
	*skel.CmdArgs
	args   args
	keys   keys
	client *remote.Client
}

// command returns the function of a command.
func command(run func(*attachment, context.Context) error) func(*skel.CmdArgs) error {
	return func(a *skel.CmdArgs) error {
		t, err := open(a)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), commandTime)
		defer cancel()
		return run(t, ctx)
	}
}

// open reads what a command is about.
func open(a *skel.CmdArgs) (*attachment, error) {
	t := &attachment{config: &config{}, CmdArgs: a}
	if err := json.Unmarshal(a.StdinData, t.config); err != nil {
		return nil, invalid("%v", err)
	}
	if t.Name == "" {
		return nil, invalid("the configuration has no name")
	}
	if err := types.LoadArgs(a.Args, &t.args); err != nil {
		return nil, invalid("CNI_ARGS: %v", err)
	}
	c := remote.Config{URL: t.IPAM.Remote, CA: t.IPAM.CA, Cert: t.IPAM.Cert, Key: t.IPAM.Key, TokenFile: t.IPAM.TokenFile}
	if err := c.Check(); err != nil {
		return nil, invalid("ipam: remote %q: %v", t.IPAM.Remote, err)
	}
	t.client = remote.New(c)
	var err error
	if t.keys, err = newKeys(t.IPAM.DataDir, t.Name); err != nil {
		return nil, ioFailure(err)
	}
	return t, nil
}

// request returns what the server is asked for.
func (t *attachment) request(ctx context.Context) (remote.Request, error) {
	r := remote.Request{Network: cmp.Or(t.IPAM.Network, t.Name), Subnet: t.IPAM.Subnet, PodID: string(t.args.PodID),
		MAC: cmp.Or(t.RuntimeConfig.MAC, string(t.args.MAC)), HostIP: t.client.HostIP(ctx)}
	r.Host, _ = os.Hostname() // "" with an error
	if r.PodID == "" && t.args.K8S_POD_NAME != "" {
		r.PodID = strings.TrimPrefix(string(t.args.K8S_POD_NAMESPACE+"/"+t.args.K8S_POD_NAME), "/")
	}
	r.PodID = cmp.Or(r.PodID, t.ContainerID)
	if t.args.HostIP != "" {
		a, err := netip.ParseAddr(string(t.args.HostIP))
		if err != nil {
			return r, invalid("CNI_ARGS: HostIP %q is no address", t.args.HostIP)
		}
		r.HostIP = a
	}
	wanted := t.RuntimeConfig.IPs
	if t.args.IP != "" {
		wanted = append(wanted, strings.Split(string(t.args.IP), ",")...)
	}
	for _, text := range wanted {
		host, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(host)
		if err != nil {
			return r, invalid("%q is no address", text)
		}
		r.Addresses = append(r.Addresses, a)
	}
	return r, nil
}

// add leases addresses, and prints them.
func (t *attachment) add(ctx context.Context) error {
	r, err := t.request(ctx)
	if err != nil {
		return err
	}
	key, err := t.keys.get(t.ContainerID, t.IfName)
	if err != nil {
		return ioFailure(err)
	}
	l, err := t.client.Allocate(ctx, key, r)
	if err == nil {
		return errors.Join(t.later(ctx), types.PrintResult(resultOf(l), t.CNIVersion))
	}
	// A runtime need not call DEL, and the server may have leased an address before its answer was lost.
	undone := t.keys.drop(t.ContainerID, t.IfName)
	if undone == nil && !errors.Is(err, remote.ErrUnavailable) {
		undone = t.later(ctx)
	}
	if undone != nil {
		return errors.Join(err, undone)
	}
	return failed(err)
}

// later releases what is to be released, this attachment's and what earlier commands have left. If the server does not, it is left again.
func (t *attachment) later(ctx context.Context) error {
	err := t.keys.release(ctx, t.client)
	var of *remote.Error
	if errors.As(err, &of) {
		fmt.Fprintln(os.Stderr, "txipam: the addresses are released later:", err)
		return nil
	}
	return err
}

// resultOf returns a lease as the result of a command.
func resultOf(l remote.Lease) *current.Result {
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	for _, ip := range l.IPs {
		c := &current.IPConfig{Address: *netOf(ip.Address)}
		if ip.Gateway.IsValid() {
			c.Gateway = ip.Gateway.AsSlice()
		}
		res.IPs = append(res.IPs, c)
	}
	for _, r := range l.Routes {
		route := &types.Route{Dst: *netOf(r.Dst)}
		if r.GW.IsValid() {
			route.GW = r.GW.AsSlice()
		}
		res.Routes = append(res.Routes, route)
	}
	if l.DNS != nil {
		res.DNS = types.DNS{Nameservers: l.DNS.Nameservers, Domain: l.DNS.Domain, Search: l.DNS.Search, Options: l.DNS.Options}
	}
	return res
}

// netOf returns a prefix in the form of package net.
func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// del releases the addresses of an attachment. It succeeds while the server does not answer: the next command for the network releases them.
func (t *attachment) del(ctx context.Context) error {
	if err := t.keys.drop(t.ContainerID, t.IfName); err != nil {
		return ioFailure(err)
	}
	return t.later(ctx)
}

// check asks the server whether the attachment has its addresses.
func (t *attachment) check(ctx context.Context) error {
	key, err := t.keys.known(t.ContainerID, t.IfName)
	if err == nil && key == "" {
		err = fmt.Errorf("txipam: %s:%s has no addresses", t.ContainerID, t.IfName)
	}
	if err != nil {
		return err
	}
	if _, err := t.client.Lease(ctx, key); err != nil {
		return failed(err)
	}
	return nil
}

// status reports whether the server answers.
func (t *attachment) status(ctx context.Context) error {
	if err := t.client.Ping(ctx); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "txipam: "+err.Error(), "")
	}
	return nil
}

// gc releases the addresses of the attachments that the runtime does not have any more.
func (t *attachment) gc(ctx context.Context) error {
	var valid []string
	for _, v := range append(t.ValidAttachments, t.Attachments...) {
		valid = append(valid, v.ContainerID+":"+v.IfName)
	}
	if err := t.keys.without(valid); err != nil {
		return err
	}
	return t.later(ctx)
}

// failed returns the error of a request to the server. A runtime tries again later if the server does not answer.
func failed(err error) error {
	if errors.Is(err, remote.ErrUnavailable) {
		return types.NewError(types.ErrTryAgainLater, "txipam: "+err.Error(), "")
	}
	return types.NewError(types.ErrInternal, "txipam: "+err.Error(), "")
}

// ioFailure returns the error of a file of this host.
func ioFailure(err error) error {
	return types.NewError(types.ErrIOFailure, "txipam: "+err.Error(), "")
}

// invalid returns the error of a configuration that cannot be used.
func invalid(format string, a ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "txipam: "+fmt.Sprintf(format, a...), "")
}
