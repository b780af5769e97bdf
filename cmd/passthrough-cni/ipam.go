package main

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/mellanox/passthrough/internal/admin"
)

// ownIPAM is the type of the key ipam with which the plugin process chooses the addresses itself. Any other is that of a plugin which is run.
const ownIPAM = "passthrough"

// delegates reports whether another plugin chooses the addresses.
func (c *config) delegates() bool { return c.IPAM.Type != "" && c.IPAM.Type != ownIPAM }

// takeIPAM reads the key ipam, if the plugin process is to choose the addresses. keys are as they are written.
func (c *config) takeIPAM(stdin []byte, keys any, cniArgs map[string]string) error {
	of, _ := keys.(map[string]any)
	if c.IPAM.Type != ownIPAM {
		return nil
	}
	// The pool has the network's name unless it has another: a network that is configured anew must not give the addresses of containers that
	// are still there.
	c.pools = &admin.IPAM{Options: map[string]string{"pool": "cni." + c.Name}}
	lists := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		if key == "type" || key == "routes" {
			continue
		}
		value, err := text(of[key])
		if err != nil {
			return invalid("ipam: key %s: %v", key, err)
		}
		switch key {
		case "subnet", "range", "gateway":
			lists[key] = strings.Split(value, ",")
		default:
			c.pools.Options[key] = value
		}
	}
	for _, s := range lists["subnet"] {
		c.pools.Subnets = append(c.pools.Subnets, admin.Subnet{Subnet: s})
	}
	for _, r := range lists["range"] {
		s := c.subnetOf(r)
		if s == nil || s.Range != "" {
			return invalid("ipam: range %s: each must be in a subnet of its own", r)
		}
		s.Range = r
	}
	for _, gw := range lists["gateway"] {
		if _, err := netip.ParseAddr(gw); err != nil { // auto, or none
			c.pools.Options["gateway"] = gw
			continue
		}
		s := c.subnetOf(gw)
		if s == nil || s.Gateway != "" {
			return invalid("ipam: gateway %s: each must be in a subnet of its own", gw)
		}
		s.Gateway = gw
	}
	return c.takeRequests(stdin, cniArgs)
}

// subnetOf returns the subnet that an address, or a range, is in; nil for none.
func (c *config) subnetOf(of string) *admin.Subnet {
	bare, _, _ := strings.Cut(of, "/")
	a, err := netip.ParseAddr(bare)
	for i, s := range c.pools.Subnets {
		if p, failed := netip.ParsePrefix(s.Subnet); err == nil && failed == nil && p.Contains(a) {
			return &c.pools.Subnets[i]
		}
	}
	return nil
}

// takeRequests takes routes, and the addresses that are asked for: by the runtime, by the key args, or in CNI_ARGS.
func (c *config) takeRequests(stdin []byte, cniArgs map[string]string) error {
	var of struct {
		IPAM struct {
			Routes []*types.Route `json:"routes"`
		} `json:"ipam"`
		RuntimeConfig struct {
			IPs []string `json:"ips"`
		} `json:"runtimeConfig"`
		Args struct {
			CNI struct {
				IPs []string `json:"ips"`
			} `json:"cni"`
		} `json:"args"`
	}
	if err := json.Unmarshal(stdin, &of); err != nil {
		return invalid("%v", err)
	}
	c.routes = of.IPAM.Routes
	switch ip := cniArgs["IP"]; {
	case len(of.RuntimeConfig.IPs) > 0:
		c.requested = of.RuntimeConfig.IPs
	case len(of.Args.CNI.IPs) > 0:
		c.requested = of.Args.CNI.IPs
	case ip != "":
		c.requested = strings.Split(ip, ",")
	}
	return nil
}
