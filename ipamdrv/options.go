package ipamdrv

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/libnetwork/netlabel"
)

// An Option is one row of the table of --ipam-opt: all that the parser, the errors and the manual say about it.
type Option struct {
	Name    string
	Values  string // what is allowed, as it is told to people
	Default string // what happens when it is not given
	Help    string

	parse func(c *config, value string) (ok bool)
}

// Options is the table of the options of pools (docker network create --ipam-opt). It is read-only.
func Options() []Option { return slices.Clone(options) }

// config is what the options of a pool say. Its zero value is what a pool without options does.
type config struct {
	lowest     bool // choose the lowest address that is free, instead of going round
	quarantine time.Duration
	sticky     time.Duration
	exclude    []span
	gateway    gatewayOption
	share      string // the name of the pool
	overflow   string // the name of the group
	probe      string // the device to ask on
	slaac      bool   // addresses are link-local, and drawn
	prefetch   int    // how many addresses each node has ahead, for each of its networks
}

var options = []Option{
	{
		Name: "exclude", Values: "up to 256 addresses, ranges A-B and subnets, separated by commas", Default: "none",
		Help: "addresses that are not chosen, such as those of other machines; one can still ask for them. Those outside of " +
			"the subnet do not matter: every subnet of a network gets the same list",
		parse: func(c *config, v string) (ok bool) { c.exclude, ok = parseSpans(v); return ok },
	},
	{
		Name: "gateway", Values: "auto, none, or one address of each family", Default: "auto",
		Help: "none: the network is to have no gateway, and engines before 28, which insist on one, get an address that costs no " +
			"container one; an address: the network's gateway, which may be outside of the subnet",
		parse: func(c *config, v string) (ok bool) { c.gateway, ok = parseGateway(v); return ok },
	},
	{
		Name: "pool", Values: nameForm, Default: "none",
		Help: "networks that name the same pool share its addresses: for networks on one segment. They have to say the same " +
			"subnet, range and options; the pool goes with the last of them",
		parse: func(c *config, v string) bool { c.share = v; return name.MatchString(v) },
	},
	{
		Name: "overflow", Values: nameForm, Default: "none",
		Help: "subnets with the same name here help each other out: when one is full, its next container gets an address of " +
			"another. For a network with several --subnet of one family; each network needs a name of its own",
		parse: func(c *config, v string) bool { c.overflow = v; return name.MatchString(v) },
	},
	{
		Name: "probe", Values: "off, or arp@ and the name of one of the host's devices", Default: "off",
		Help: "before an address is given, ask the segment that the device is on whether somebody has it, by ARP or IPv6 " +
			"neighbour discovery; one that is answered for is passed over. Each start takes up to 0.3 s longer",
		parse: func(c *config, v string) (ok bool) { c.probe, ok = parseProbe(v); return ok },
	},
	{
		Name: "prefetch", Values: "0 to 32", Default: "0",
		Help: "with STORE=etcd://...: how many addresses a node takes ahead for the network, to have some to give while etcd is " +
			"away. Nobody else gets them meanwhile",
		parse: func(c *config, v string) bool {
			n, err := strconv.ParseUint(v, 10, 8)
			c.prefetch = int(n)
			return err == nil && n <= 32
		},
	},
	{
		Name: "reuse", Values: "last or immediate", Default: "last",
		Help: "when an address that was released is chosen again: last, when all others have been (the choice goes round); " +
			"immediate, the lowest free address always comes first",
		parse: func(c *config, v string) bool { c.lowest = v == "immediate"; return c.lowest || v == "last" },
	},
	{
		Name: "quarantine", Values: "a duration from 1s to 8760h, such as 30s", Default: "none",
		Help:  "how long an address that was released is not chosen, even if no other is left; one can still ask for it",
		parse: func(c *config, v string) (ok bool) { c.quarantine, ok = duration(v); return ok },
	},
	{
		Name: "sticky", Values: "a duration from 1s to 8760h, such as 24h", Default: "none",
		Help: "how long a released address is kept for the container that had it, known again by its name (engine 29 and newer) " +
			"or its MAC (setting REQUIRE_MAC); others get it only when no other is left",
		parse: func(c *config, v string) (ok bool) { c.sticky, ok = duration(v); return ok },
	},
	{
		Name: "slaac", Values: "yes or no", Default: "no",
		Help: "yes: the network's IPv6 addresses come from routers alone. Its IPv6 subnet has to be fe80::/64, of which containers " +
			"get addresses drawn by lot, because the engine demands one",
		parse: func(c *config, v string) bool { c.slaac = v == "yes"; return c.slaac || v == "no" },
	},
}

// name is what the name of a pool or of a group looks like, and nameForm says so.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

const nameForm = "up to 63 letters, digits, _, - and ."

// duration reads how long something rests.
func duration(v string) (time.Duration, bool) {
	d, err := time.ParseDuration(v)
	return d, err == nil && d >= time.Second && d <= 365*24*time.Hour
}

// userOptions picks those of a RequestPool's options that are the user's, by their names in the table. What the engine
// adds of its own accord passes: swarm leaves the address type of an earlier request in the map.
func userOptions(given map[string]string) (map[string]string, error) {
	var users map[string]string
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == optAddressType || strings.HasPrefix(key, netlabel.Prefix+".") {
			continue
		}
		i := slices.IndexFunc(options, func(o Option) bool { return strings.EqualFold(o.Name, key) })
		if i < 0 {
			return nil, refuse(ErrInvalid, "ipam option %.64q: unknown; known are %s", key, knownOptions())
		}
		if users == nil {
			users = map[string]string{}
		}
		users[options[i].Name] = given[key]
	}
	return users, nil
}

// parseOptions reads the options of a pool.
func parseOptions(users map[string]string) (config, error) {
	var c config
	for _, o := range options {
		v, given := users[o.Name]
		if given && !o.parse(&c, v) {
			return config{}, refuse(ErrInvalid, "ipam option %s: %.64q is not allowed; allowed: %s", o.Name, v, o.Values)
		}
	}
	if c.share != "" && c.overflow != "" {
		return config{}, refuse(ErrInvalid, "ipam options pool and overflow: a pool that is shared cannot help another out; "+
			"say only one of them")
	}
	return c, nil
}

// knownOptions lists the names of the options.
func knownOptions() string {
	var names []string
	for _, o := range options {
		names = append(names, o.Name)
	}
	return strings.Join(names, ", ")
}
