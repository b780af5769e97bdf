// Package option has the options of pools (docker network create --ipam-opt): user text to typed values. It is pure: it knows no store, no
// lease and no log. Its errors are for the user.
package option

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/internal/opttable"
	"github.com/mellanox/passthrough/ipamdrv/addr"
)

// Config has the values of a pool's options. What a pool without options has is Parse(nil).
type Config struct {
	Lowest     bool          // allocate the lowest free address, instead of round-robin
	Quarantine time.Duration // cooldown of every released address
	Sticky     time.Duration // how long a released address is kept for its container
	// StickyByDefault: the user did not ask for Sticky. No container waits long for its old address, and the number of kept ones is limited.
	StickyByDefault bool
	Exclude         []addr.Range
	Gateway         Gateway
	PoolName        string // of a shared pool; "" for none
	Group           string // name of the pool group; "" for none
	Probe           string // device on which addresses are probed; "" for none
	SLAAC           bool   // IPv6 addresses are link-local and random
	Prefetch        int    // addresses that each node leases ahead for each of its networks
	DHCP            bool   // IPv4 addresses are leased by the DHCP server of Device's segment
	Device          string // of the host; "" for none
	// Remote: an IPAM server leases the addresses, those of its network of this name, or AnyNetwork; "" if it does not.
	Remote string

	// Newer are the options of a stored pool, as NAME=VALUE, that this version does not know, or whose values it does not know: a newer
	// version made the pool. This version cannot obey them, so that it must not allocate.
	Newer []string
}

// Option is a row of the table.
type Option = opttable.Option[Config]

// All returns the table of options. It is read-only.
func All() []Option { return slices.Clone(table.Options) }

var table = opttable.Table[Config]{Noun: "ipam option", Options: []Option{
	{
		Name: "exclude", Values: "up to 256 addresses, ranges A-B and subnets, separated by commas", Default: "none",
		Help: "addresses that are not allocated, such as those of other machines; a container can still request them. Those outside of " +
			"the subnet have no effect: every subnet of a network gets the same list",
		Parse: func(c *Config, v string) (err error) { c.Exclude, err = allowed(addr.ParseRanges(v)); return err },
	},
	{
		Name: "gateway", Values: "auto, none, or one address of each family", Default: "auto",
		Help: "none: the network has no gateway; engines before 28, which demand one, get an address that no container can have; " +
			"an address: the network's gateway, which may be outside of the subnet",
		Parse: func(c *Config, v string) (err error) { c.Gateway, err = allowed(parseGateway(v)); return err },
	},
	{
		Name: "pool", Values: nameForm, Default: "none",
		Help: "networks that name the same pool share its addresses: for networks on one segment. They must have the same " +
			"subnet, range and options; the pool is removed with the last of them",
		Parse: func(c *Config, v string) (err error) { c.PoolName, err = allowed(v, name.MatchString(v)); return err },
	},
	{
		Name: "overflow", Values: nameForm, Default: "none",
		Help: "subnets with the same name form a group: if one is full, its next container gets an address of " +
			"another. For a network with several --subnet of one family; each network needs a name of its own",
		Parse: func(c *Config, v string) (err error) { c.Group, err = allowed(v, name.MatchString(v)); return err },
	},
	{
		Name: "probe", Values: "off, or arp@ and the name of one of the host's devices", Default: "off",
		Help: "before an address is given, probe it by ARP or IPv6 neighbour discovery on the segment of the device; skip it if a host " +
			"answers. Each start takes up to 0.3 s longer",
		Parse: func(c *Config, v string) (err error) { c.Probe, err = allowed(parseProbe(v)); return err },
	},
	{
		Name: "prefetch", Values: "0 to 32", Default: "0",
		Help: "with STORE=etcd://...: how many addresses a node leases ahead for the network, to have some to give while etcd is " +
			"not available. No other node gets them meanwhile",
		Parse: func(c *Config, v string) (err error) { c.Prefetch, err = allowed(number.Parse(v, 0, 32)); return err },
	},
	{
		Name: "reuse", Values: "last or immediate", Default: "last",
		Help: "when a released address is allocated again. last: after all others (round-robin); " +
			"immediate: the lowest free address is always next",
		Parse: func(c *Config, v string) (err error) {
			c.Lowest, err = allowed(v == "immediate", v == "immediate" || v == "last")
			return err
		},
	},
	{
		Name: "quarantine", Values: "a duration from 1s to 8760h, such as 30s", Default: "none",
		Help:  "how long a released address is not allocated, even if no other is left; a container can still request it",
		Parse: func(c *Config, v string) (err error) { c.Quarantine, err = duration(v); return err },
	},
	{
		Name: "sticky", Values: "a duration from 1s to 8760h, such as 24h, or off", Default: "1h; off with reuse=immediate",
		Help: "how long a released address is kept for the container that had it, recognized by its name (engine 29 and newer) " +
			"or its MAC (setting REQUIRE_MAC); others get it only if no other is left",
		Parse: func(c *Config, v string) (err error) {
			if c.Sticky = 0; v != "off" {
				c.Sticky, err = duration(v)
			}
			return err
		},
	},
	{
		Name: "slaac", Values: "yes or no", Default: "no",
		Help: "yes: the network's IPv6 addresses come from routers alone. Its IPv6 subnet must be fe80::/64, of which containers " +
			"get random addresses, because the engine demands one",
		Parse: func(c *Config, v string) (err error) {
			c.SLAAC, err = allowed(v == "yes", v == "yes" || v == "no")
			return err
		},
	},
	{
		Name: "dhcp", Values: "yes or no", Default: "no",
		Help: "yes: the DHCP server of the segment of netdevice leases the IPv4 addresses, and names the gateway unless it is " +
			"given. Needs the plugin's setting DHCP, see docs/dhcp.md",
		Parse: func(c *Config, v string) (err error) {
			c.DHCP, err = allowed(v == "yes", v == "yes" || v == "no")
			return err
		},
	},
	{
		Name: "netdevice", Values: "the name of one of the host's devices", Default: "none",
		Help:  "for dhcp: a device of the host on the segment of the containers, with an IPv4 address in the subnet",
		Parse: func(c *Config, v string) (err error) { c.Device, err = allowed(v, isDevice(v)); return err },
	},
	{
		Name: "remote", Values: "auto, off, or the name of a network of the server: " + nameForm, Default: "auto with STORE=https://..., otherwise off",
		Help: "with STORE=https://...: of which of the server's networks the addresses are. auto: of that with the subnet; off: this node " +
			"chooses them, as without a server. See docs/remote-ipam.md",
		Parse: func(c *Config, v string) (err error) {
			if c.Remote, err = allowed(v, name.MatchString(v)); v == RemoteOff {
				c.Remote = ""
			}
			return err
		},
	},
}}

// Values of the option remote.
const (
	AnyNetwork = "auto" // the network that has the pool's subnet
	RemoteOff  = "off"
)

// IsNetwork returns true for the name of a server's network that the option remote can have.
func IsNetwork(v string) bool { return name.MatchString(v) && v != AnyNetwork && v != RemoteOff }

// name matches the names of pools and groups; nameForm says so in words.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

const nameForm = "up to 63 letters, digits, _, - and ."

// allowed returns value, and [opttable.ErrNotAllowed] unless ok.
func allowed[T any](value T, ok bool) (T, error) {
	if !ok {
		return value, opttable.ErrNotAllowed
	}
	return value, nil
}

// DefaultSticky is how long a released address is kept for its container if the user says nothing.
const DefaultSticky = time.Hour

// duration parses a cooldown.
func duration(v string) (time.Duration, error) {
	return allowed(number.ParseDuration(v, time.Second, 365*24*time.Hour))
}

// device matches the names of network devices (net/core/dev.c, dev_valid_name; IFNAMSIZ is 16).
var device = regexp.MustCompile(`^[^\s/:@]{1,15}$`)

// parseProbe returns the device to probe on, "" for none.
func parseProbe(v string) (string, bool) {
	if v == "off" {
		return "", true
	}
	dev, ok := strings.CutPrefix(v, "arp@")
	return dev, ok && isDevice(dev)
}

// isDevice returns true for what can be the name of a network device.
func isDevice(v string) bool { return device.MatchString(v) && v != "." && v != ".." }

// A Gateway is the value of the option gateway.
type Gateway struct {
	None  bool
	addrs []netip.Addr // at most one of each family
}

// parseGateway parses the option gateway.
func parseGateway(v string) (g Gateway, ok bool) {
	if v == "auto" || v == "none" {
		return Gateway{None: v == "none"}, true
	}
	for item := range strings.SplitSeq(v, ",") {
		a, err := addr.Parse(strings.TrimSpace(item))
		if err != nil || len(g.addrs) > 0 && (len(g.addrs) > 1 || g.addrs[0].Is4() == a.Is4()) {
			return Gateway{}, false
		}
		g.addrs = append(g.addrs, a)
	}
	return g, true
}

// Addrs returns the addresses that the option names.
func (g Gateway) Addrs() []netip.Addr { return slices.Clone(g.addrs) }

// For returns the gateway for a subnet. It is not valid if the option names none of the subnet's family.
func (g Gateway) For(subnet netip.Prefix) netip.Addr {
	for _, a := range g.addrs {
		if a.Is4() == subnet.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// AddressType is the option of RequestAddress that says what the address is for. It is not in package netlabel but in libnetwork's ipamapi,
// which does not build any more.
const AddressType = "RequestAddressType"

// OfUser returns the options of a RequestPool that are the user's, by their names in the table. It drops what the engine adds: swarm leaves
// the address type of an earlier request in the map.
func OfUser(given map[string]string) (map[string]string, error) {
	var users map[string]string
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == AddressType || strings.HasPrefix(key, netlabel.Prefix+".") {
			continue
		}
		o, err := table.Find(key)
		if err != nil {
			return nil, err
		}
		if users == nil {
			users = map[string]string{}
		}
		users[o.Name] = given[key]
	}
	return users, nil
}

// Parse parses the options of a pool, which [OfUser] has returned.
func Parse(users map[string]string) (Config, error) {
	var c Config
	for _, name := range table.Names() {
		v, given := users[name]
		if !given {
			continue
		}
		if err := table.Parse(&c, name, v); err != nil {
			return Config{}, err
		}
	}
	if c.PoolName != "" && c.Group != "" {
		return Config{}, errors.New("ipam options pool and overflow: a pool that is shared cannot help another out; " +
			"say only one of them")
	}
	if _, given := users["sticky"]; !given && !c.Lowest && !c.DHCP && c.Remote == "" {
		c.Sticky, c.StickyByDefault = DefaultSticky, true
	}
	if err := c.checkDHCP(users); err != nil {
		return c, err
	}
	return c, c.checkRemote(users)
}

// checkRemote refuses options that say which address is chosen beside remote, which leaves that to the server. Networks can share a pool all the
// same.
func (c Config) checkRemote(users map[string]string) error {
	if c.Remote == "" {
		return nil
	}
	for _, name := range append([]string{"dhcp"}, notWithDHCP...) {
		if _, given := users[name]; given && name != "pool" && (name != "dhcp" || c.DHCP) {
			return fmt.Errorf("ipam options remote and %s: the IPAM server chooses the addresses; say only one of them, or remote=off", name)
		}
	}
	return nil
}

// notWithDHCP are the options that say which address is chosen, which a DHCP server does.
var notWithDHCP = []string{"exclude", "pool", "overflow", "probe", "prefetch", "reuse", "quarantine", "sticky"}

// checkDHCP refuses options that do not go together with dhcp.
func (c Config) checkDHCP(users map[string]string) error {
	switch {
	case !c.DHCP && c.Device != "":
		return errors.New("ipam option netdevice: is for dhcp=yes only")
	case !c.DHCP:
		return nil
	case c.Device == "":
		return errors.New("ipam option dhcp: needs the option netdevice: the host's device on the segment of the DHCP server")
	}
	for _, name := range notWithDHCP {
		if _, given := users[name]; given {
			return fmt.Errorf("ipam options dhcp and %s: the DHCP server chooses the addresses; say only one of them", name)
		}
	}
	return nil
}

// numeric are the options whose value is a number or a duration.
var numeric = []string{"prefetch", "quarantine", "sticky"}

// ParseStored parses the options of a pool's record. Older versions accepted some numbers and durations that Parse refuses, such as 010; what
// newer versions may have accepted is in the config's Newer.
func ParseStored(stored map[string]string) (Config, error) {
	options := map[string]string{}
	var newer []string
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		value := stored[name]
		if slices.Contains(numeric, name) {
			value = number.Canonical(value)
		}
		if !slices.Contains(table.Names(), name) || table.Parse(&Config{}, name, value) != nil {
			newer = append(newer, fmt.Sprintf("%.64s=%.64s", name, stored[name]))
			continue
		}
		options[name] = value
	}
	c, err := Parse(options)
	c.Newer = newer
	return c, err
}
