package netdrv

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An Option is one row of the options table: all that the parser, the errors and the README say about it.
type Option struct {
	Name    string
	Values  string // what is allowed, as it is told to people
	Default string // what happens when it is not given
	Help    string
	Modes   []string // the modes that know it; none means all

	parse func(c *config, value string) error
}

// Options is the table of `docker network create -o` options. It is read-only.
func Options() []Option { return slices.Clone(options) }

var options = []Option{
	{
		Name: "netdevice", Values: "name or PCI address of a netdev", Default: "required",
		Help:  "the PF whose VFs containers get, or the device to hand over whole",
		parse: func(c *config, v string) error { c.netdevice = v; return nil },
	},
	{
		Name: "mode", Values: "sriov or passthrough", Default: "sriov",
		Help: "sriov: each container gets a VF; passthrough: one container gets the whole device",
		parse: func(c *config, v string) error {
			c.mode = strings.ToLower(v)
			if c.mode != modeSRIOV && c.mode != modePassthrough {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "vlan", Values: "0 to 4094", Default: "left as it is", Modes: []string{modeSRIOV},
		Help: "VLAN that the NIC puts the VFs in; 0 makes them untagged",
		parse: func(c *config, v string) (err error) {
			c.vlan, err = number(v, 0, 4094)
			return err
		},
	},
	{
		Name: "privileged", Values: "yes or no (also 1, true, on; 0, false, off)", Default: "no", Modes: []string{modeSRIOV},
		Help: "yes: spoof check off and trust on, for software that changes MACs or sniffs; no: the reverse",
		parse: func(c *config, v string) (err error) {
			c.privileged, err = boolean(v)
			return err
		},
	},
	{
		Name: "numvfs", Values: "1 to what the NIC can", Default: "all", Modes: []string{modeSRIOV},
		Help: "how many VFs to make if the PF has none yet",
		parse: func(c *config, v string) error {
			n, err := number(v, 1, 1<<16)
			if err == nil {
				c.numVFs = *n
			}
			return err
		},
	},
	{
		Name: "prefix", Values: "up to 10 letters, digits, _, - and .", Default: "eth",
		Help: "name of the device in the container, without its number",
		parse: func(c *config, v string) error {
			if !validPrefix.MatchString(v) {
				return errNotAllowed
			}
			c.prefix = v
			return nil
		},
	},
	{
		Name: "gateway", Values: "none or auto", Default: "only the one given with --gateway",
		Help: "auto: also a default route through the gateway that the IPAM driver chooses; none: no default route at all",
		parse: func(c *config, v string) error {
			c.gateway = strings.ToLower(v)
			if c.gateway != gatewayNone && c.gateway != gatewayAuto {
				return errNotAllowed
			}
			return nil
		},
	},
}

const (
	gatewayNone = "none"
	gatewayAuto = "auto"
)

// validPrefix leaves room for the number within the kernel's 15 characters for a name.
var validPrefix = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,9}$`)

// errNotAllowed is a parser's way to say that the value is none of the allowed ones; the table knows which those are.
var errNotAllowed = fmt.Errorf("not allowed")

func number(v string, low, high int) (*int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return nil, errNotAllowed
	}
	return &n, nil
}

// boolean reads yes and no as people write them.
func boolean(v string) (*bool, error) {
	yes := slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(v))
	if !yes && !slices.Contains([]string{"0", "false", "no", "off"}, strings.ToLower(v)) {
		return nil, errNotAllowed
	}
	return &yes, nil
}

// engineOptions are keys that the engine itself acts on for every driver (engine 28, libnetwork osl) and sends along.
var engineOptions = []string{
	"com.docker.network.advertise_addr_nmsgs",
	"com.docker.network.advertise_addr_ms",
}

// parseOptions turns the options of a network into its config. Keys are matched without regard to case.
func parseOptions(raw map[string]string) (*config, error) {
	c := &config{mode: modeSRIOV, prefix: "eth"}
	given := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		name := strings.ToLower(key)
		if slices.Contains(engineOptions, name) {
			continue
		}
		if _, twice := given[name]; twice {
			return nil, fmt.Errorf("option %s: given twice", name)
		}
		given[name] = raw[key]
		if err := parseOption(c, name, strings.TrimSpace(raw[key])); err != nil {
			return nil, err
		}
	}
	if c.netdevice == "" {
		return nil, fmt.Errorf("option netdevice: missing; say which device to use: -o netdevice=NAME")
	}
	return c, forMode(c.mode, given)
}

// parseOption parses one option into c.
func parseOption(c *config, name, value string) error {
	i := slices.IndexFunc(options, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return unknownOption(name)
	}
	o := options[i]
	if value == "" {
		return fmt.Errorf("option %s: has no value; allowed: %s", name, o.Values)
	}
	if err := o.parse(c, value); err != nil {
		return fmt.Errorf("option %s: %q is not allowed; allowed: %s", name, value, o.Values)
	}
	return nil
}

// forMode refuses options that the mode does not know.
func forMode(mode string, given map[string]string) error {
	for _, o := range options {
		if _, ok := given[o.Name]; ok && len(o.Modes) > 0 && !slices.Contains(o.Modes, mode) {
			return fmt.Errorf("option %s: not for mode=%s, only for mode=%s", o.Name, mode, strings.Join(o.Modes, ", "))
		}
	}
	return nil
}

func unknownOption(name string) error {
	var names []string
	for _, o := range options {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return fmt.Errorf("option %s: unknown; known are %s", name, strings.Join(names, ", "))
}
