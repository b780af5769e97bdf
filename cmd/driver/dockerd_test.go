package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// dockerd is the part of an engine that takes the answers and moves devices (libnetwork: drivers/remote, ipams/remote, osl). It refuses
// what any of the releases would refuse.
type dockerd struct {
	release   string
	kernel    *hwtest.Kernel
	pools     map[string]given     // by handle
	endpoints map[string]*attached // by ID
}

// attached is an endpoint as the engine knows it.
type attached struct {
	mac            string // that the engine sets in the container; "" if it sets none
	sandbox        string
	source, prefix string // what Join has answered
	name           string // likewise: the exact one
	inside         string // name of the device in the container
}

// newDockerd returns an engine of a release such as 28.5 on a machine.
func newDockerd(release string, k *hwtest.Kernel) dockerd {
	return dockerd{release, k, map[string]given{}, map[string]*attached{}}
}

// asksBefore returns true for engines that call GwAllocCheck: 28 and newer.
func (d dockerd) asksBefore() bool { return cmp.Compare(d.release, "28") > 0 }

// A request has the fields of requests with which answers are compared.
type request struct {
	NetworkID, EndpointID, SandboxKey string
	PoolID, Pool, Address             string
	Options                           map[string]any
	Interface                         face
}

// A reply has the fields of all answers.
type reply struct {
	Err, Error string

	Scope          string
	GwAllocChecker bool

	Interface             *face
	InterfaceName         struct{ SrcName, DstPrefix, DstName string }
	Gateway, GatewayIPv6  string
	DisableGatewayService bool
	StaticRoutes          []struct {
		Destination string
		RouteType   int
		NextHop     string
	}

	LocalDefaultAddressSpace, GlobalDefaultAddressSpace string
	PoolID, Pool, Address                               string
}

// face is the interface of an endpoint in requests and answers.
type face struct{ Address, AddressIPv6, MacAddress string }

// take does what the engine does with a good answer.
func (d dockerd) take(op, body, answer string) error {
	var q request
	var a reply
	if body != "" {
		if err := json.Unmarshal([]byte(body), &q); err != nil {
			return err
		}
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		return err
	}
	if a.Err != "" || a.Error != "" {
		return errors.New("an error with status 200")
	}
	switch op {
	case "NetworkDriver.GetCapabilities":
		return d.takeCapabilities(&a)
	case "NetworkDriver.GwAllocCheck":
		if !d.asksBefore() {
			return errors.New("this release does not ask that")
		}
	case "NetworkDriver.CreateEndpoint":
		return d.takeEndpoint(&q, &a)
	case "NetworkDriver.Join":
		return d.takeJoin(&q, &a)
	case "NetworkDriver.DeleteEndpoint":
		delete(d.endpoints, q.EndpointID)
	case "IpamDriver.GetDefaultAddressSpaces":
		if a.LocalDefaultAddressSpace == "" || a.GlobalDefaultAddressSpace == "" {
			return errors.New("an address space without a name")
		}
	case "IpamDriver.RequestPool":
		return d.takePool(&q, &a)
	case "IpamDriver.RequestAddress":
		return d.takeAddress(&q, &a)
	}
	return nil
}

// takeCapabilities: a driver of another scope is not registered, and an engine whose driver has no GwAllocCheck requests a gateway.
func (d dockerd) takeCapabilities(a *reply) error {
	if a.Scope != "local" || !a.GwAllocChecker {
		return fmt.Errorf("scope %q, GwAllocChecker %v", a.Scope, a.GwAllocChecker)
	}
	return nil
}

// takeEndpoint: a field that the request has must not be in the answer, not even with the same value.
func (d dockerd) takeEndpoint(q *request, a *reply) error {
	e := &attached{mac: q.Interface.MacAddress}
	d.endpoints[q.EndpointID] = e
	if a.Interface == nil {
		return nil
	}
	if a.Interface.Address != "" || a.Interface.AddressIPv6 != "" {
		return errors.New("addresses are the IPAM driver's to give")
	}
	if e.mac != "" && a.Interface.MacAddress != "" {
		return errors.New("driver modified interface MAC address")
	}
	if a.Interface.MacAddress == "" {
		return nil
	}
	e.mac = a.Interface.MacAddress
	_, err := net.ParseMAC(e.mac)
	return err
}

// takeJoin: the device must be in the host under its name, and an endpoint without a gateway gets a second interface unless the answer
// forbids it.
func (d dockerd) takeJoin(q *request, a *reply) error {
	e := d.endpoints[q.EndpointID]
	if e == nil {
		return errors.New("no such endpoint")
	}
	e.sandbox, e.source, e.prefix = path.Base(q.SandboxKey), a.InterfaceName.SrcName, a.InterfaceName.DstPrefix
	e.name = a.InterfaceName.DstName
	links, err := d.kernel.Links()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(links, func(l hw.Link) bool { return l.Name == e.source }) {
		return fmt.Errorf("no device %s in the host", e.source)
	}
	for _, gw := range []string{a.Gateway, a.GatewayIPv6} {
		if _, err := netip.ParseAddr(gw); gw != "" && err != nil {
			return err
		}
	}
	for _, r := range a.StaticRoutes { // drivers/remote/driver.go, parseStaticRoutes
		if _, err := netip.ParsePrefix(r.Destination); err != nil {
			return err
		}
		if _, err := netip.ParseAddr(r.NextHop); (err == nil) != (r.RouteType == 0) {
			return fmt.Errorf("a route of type %d by way of %q", r.RouteType, r.NextHop)
		}
	}
	if a.Gateway == "" && a.GatewayIPv6 == "" && !a.DisableGatewayService {
		return errors.New("neither a gateway nor DisableGatewayService")
	}
	return nil
}

// takePool: a pool has a handle and the requested subnet.
func (d dockerd) takePool(q *request, a *reply) error {
	p, err := netip.ParsePrefix(a.Pool)
	switch {
	case err != nil:
		return err
	case a.PoolID == "" || p != p.Masked() || q.Pool != "" && q.Pool != a.Pool:
		return errors.New("not a pool")
	}
	group, _ := q.Options["overflow"].(string)
	d.pools[a.PoolID] = given{p, group}
	return nil
}

// A given is a pool that the engine has: its subnet, and those of its group (--ipam-opt overflow).
type given struct {
	subnet netip.Prefix
	group  string
}

// takeAddress: an address has the prefix length of its pool, which the device in the container gets.
func (d dockerd) takeAddress(q *request, a *reply) error {
	p, err := netip.ParsePrefix(a.Address)
	asked := d.pools[q.PoolID]
	of := slices.ContainsFunc(slices.Collect(maps.Values(d.pools)), func(g given) bool {
		return g.subnet == p.Masked() && g.group == asked.group && g.group != ""
	})
	switch {
	case err != nil:
		return err
	case p.Masked() != asked.subnet && !of || q.Address != "" && q.Address != p.Addr().String():
		return fmt.Errorf("not an address of %s", asked.subnet)
	}
	return nil
}

// move moves an endpoint's device into its container, under a name with Join's prefix, and sets the endpoint's MAC.
func (d dockerd) move(endpoint, inside string) error {
	e := d.endpoints[endpoint]
	if e == nil || e.source == "" {
		return errors.New("nothing has joined")
	}
	if inside != e.name && (!strings.HasPrefix(inside, e.prefix) || len(inside) != len(e.prefix)+1) {
		return fmt.Errorf("Join has answered the prefix %q and the name %q", e.prefix, e.name)
	}
	if err := d.kernel.MoveToNS(e.sandbox, e.source, inside); err != nil {
		return err
	}
	e.inside = inside
	if e.mac == "" {
		return nil
	}
	mac := hw.MAC(e.mac)
	return d.kernel.InNS(e.sandbox).SetLink(inside, hw.Link{MAC: mac}, hw.LinkMAC)
}

// home moves the device back under its name.
func (d dockerd) home(endpoint string) error {
	e := d.endpoints[endpoint]
	if e == nil || e.inside == "" {
		return errors.New("nothing was moved")
	}
	return d.kernel.MoveHome(e.sandbox, e.inside, e.source)
}
