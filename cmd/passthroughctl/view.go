package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// ctl has the flags of all commands.
type ctl struct {
	socket       string // "" for the one that is found
	engineSocket string
	format       string
}

// A view is what plugin and engine know at one moment.
type view struct {
	plugin     *admin.Client
	socket     string
	status     admin.Status
	names      map[string]string     // of networks, by ID
	lost       []string              // names of networks that the engine has of the plugin, and the plugin has no records of
	containers map[string]attachment // by endpoint ID
}

// attachment is a container on a network, as the engine knows it.
type attachment struct {
	container, state string
	network          string // ID
	endpoint         string
	mac              string
	addrs            []string
}

// view asks plugin and engine. Without an engine, as while it restarts, IDs take the place of names.
func (c *ctl) view(cmd *cobra.Command) (*view, error) {
	v := &view{}
	var err error
	if v.plugin, v.socket, err = c.client(); err != nil {
		return nil, err
	}
	if err := v.plugin.Call(cmd.Context(), admin.StatusCall, struct{}{}, &v.status); err != nil {
		return nil, err
	}
	engine := admin.NewClient(c.engineSocket)
	err = v.askEngine(cmd.Context(), engine)
	if err == nil {
		err = v.findLost(cmd.Context(), engine)
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "passthroughctl: names are not known: %v\n", err)
	}
	return v, nil
}

// findLost finds the networks that the engine has of the plugin, and that the plugin has no records of.
func (v *view) findLost(ctx context.Context, engine *admin.Client) error {
	ours, err := engineNetworks(ctx, engine, v.socket)
	for _, n := range ours {
		known := slices.ContainsFunc(v.status.Networks, func(k admin.Network) bool { return k.ID == n.ID })
		if n.device && !known {
			v.lost = append(v.lost, n.Name)
		}
	}
	slices.Sort(v.lost)
	return err
}

// client returns a client of the plugin, and the plugin's socket.
func (c *ctl) client() (plugin *admin.Client, socket string, err error) {
	socket = c.socket
	if socket == "" {
		if socket, err = admin.FindSocket(); err != nil {
			return nil, "", err
		}
	}
	return admin.NewClient(socket), socket, nil
}

// withView returns the function of a command that needs a view.
func (c *ctl) withView(run func(cmd *cobra.Command, v *view, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		v, err := c.view(cmd)
		if err != nil {
			return err
		}
		return run(cmd, v, args)
	}
}

// askEngine reads the names of networks and containers.
func (v *view) askEngine(ctx context.Context, engine *admin.Client) error {
	var networks []struct{ ID, Name string }
	if err := engine.Get(ctx, "/networks", &networks); err != nil {
		return err
	}
	v.names = map[string]string{}
	for _, n := range networks {
		v.names[n.ID] = n.Name
	}
	var containers []struct {
		Names           []string
		State           string
		NetworkSettings struct {
			Networks map[string]struct {
				NetworkID, EndpointID, MacAddress string
				IPAddress, GlobalIPv6Address      string
			}
		}
	}
	if err := engine.Get(ctx, "/containers/json?all=1", &containers); err != nil {
		return err
	}
	v.containers = map[string]attachment{}
	for _, c := range containers {
		name := ""
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		for _, n := range c.NetworkSettings.Networks {
			if n.EndpointID == "" {
				continue // the container does not run
			}
			v.containers[n.EndpointID] = attachment{name, c.State, n.NetworkID, n.EndpointID, n.MacAddress,
				slices.DeleteFunc([]string{n.IPAddress, n.GlobalIPv6Address}, func(a string) bool { return a == "" })}
		}
	}
	return nil
}

// An engineNetwork is a network that the engine has of the plugin.
type engineNetwork struct {
	ID, Name string
	device   bool // the plugin is its network driver, and not only its IPAM driver
}

// engineNetworks lists the networks of the plugin that the engine has.
func engineNetworks(ctx context.Context, engine *admin.Client, socket string) ([]engineNetwork, error) {
	name, err := driverName(ctx, engine, socket)
	if err != nil {
		return nil, err
	}
	var all []struct {
		ID, Name, Driver string
		IPAM             struct{ Driver string }
	}
	if err := engine.Get(ctx, "/networks", &all); err != nil {
		return nil, err
	}
	var ours []engineNetwork
	for _, n := range all {
		if n.Driver == name || n.IPAM.Driver == name {
			ours = append(ours, engineNetwork{n.ID, n.Name, n.Driver == name})
		}
	}
	return ours, nil
}

// driverName returns what the engine calls the plugin with a socket. That of a managed plugin is in a folder named after the plugin's ID; another
// plugin is called as its socket.
func driverName(ctx context.Context, engine *admin.Client, socket string) (string, error) {
	var plugins []struct{ ID, Name string }
	if err := engine.Get(ctx, "/plugins", &plugins); err != nil {
		return "", err
	}
	for _, p := range plugins {
		if p.ID == filepath.Base(filepath.Dir(socket)) {
			return p.Name, nil
		}
	}
	return strings.TrimSuffix(filepath.Base(socket), ".sock"), nil
}

// network returns the name of a network, or the short form of its ID.
func (v *view) network(id string) string {
	if name := v.names[id]; name != "" {
		return name
	}
	for _, n := range v.status.Networks {
		if n.ID == id && n.Owner != "" {
			return n.Name
		}
	}
	return ledger.ShortID(id)
}

// container returns the name of the container of an endpoint, its owner if that is not the engine, or the short form of the endpoint's ID with
// a mark.
func (v *view) container(endpoint string) string {
	for _, d := range v.status.Devices {
		if d.Endpoint == endpoint && d.Owner != nil {
			return d.Owner.String()
		}
	}
	if at, ok := v.containers[endpoint]; ok {
		return at.container
	}
	if endpoint == "" {
		return ""
	}
	return "endpoint " + ledger.ShortID(endpoint)
}

// device returns the device that is given to an endpoint, nil for none.
func (v *view) device(endpoint string) *admin.Device {
	for i, d := range v.status.Devices {
		if d.Endpoint == endpoint && d.State != string(alloc.Quarantined) {
			return &v.status.Devices[i]
		}
	}
	return nil
}

// pools asks the plugin for its pools.
func (v *view) pools(ctx context.Context) ([]admin.Pool, error) {
	var answer admin.Pools
	err := v.plugin.Call(ctx, admin.PoolsCall, struct{}{}, &answer)
	return answer.Pools, err
}

// leases asks the plugin for the leases of a pool, or for that of one address.
func (v *view) leases(ctx context.Context, id, addr string) ([]admin.Lease, error) {
	var answer admin.Leases
	err := v.plugin.Call(ctx, admin.LeasesCall, admin.LeasesRequest{Pool: id, Address: addr}, &answer)
	return answer.Leases, err
}

// openHost opens the devices of this machine, which are those of the network namespace of this process.
func openHost() (*hw.Host, error) {
	kernel, err := rtnl.Open("/sys", "/proc/irq")
	if err != nil {
		return nil, err
	}
	return hw.Open(hw.Config{Kernel: kernel, Sys: kernel.Sysfs()})
}

// namesOf returns the names of the containers on a network, in order.
func (v *view) namesOf(network string) []string {
	names := map[string]bool{}
	for _, at := range v.containers {
		if at.network == network {
			names[at.container] = true
		}
	}
	for _, d := range v.status.Devices {
		if d.Network == network && d.Owner != nil {
			names[v.container(d.Endpoint)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
