package netdrv

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// errNotAllowed is a parser's way to say that the value is none of the allowed ones; the table knows which those are.
var errNotAllowed = errors.New("not allowed")

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

// ranges reads indexes of VFs: "0-3,7". Of one that is in it twice the first counts.
func ranges(v string) ([]int, error) {
	var all []int
	seen := map[int]bool{}
	for _, part := range strings.Split(strings.ReplaceAll(v, " ", ""), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := number(from, 0, maxVFs)
		if err != nil {
			return nil, err
		}
		last, err := number(to, *first, maxVFs)
		if err != nil {
			return nil, err
		}
		for i := *first; i <= *last; i++ {
			if !seen[i] {
				seen[i] = true
				all = append(all, i)
			}
		}
	}
	return all, nil
}

// partition reads a P_Key. The top bit says that the member is a full one, which alone can talk to all (InfiniBand
// Architecture 10.9.3); the kernel sets it as well (drivers/infiniband/ulp/ipoib/ipoib_main.c, create_child_store, Linux 6.12).
func partition(v string) (int, error) {
	const full = 0x8000
	n, err := strconv.ParseUint(v, 0, 16)
	if err != nil || n&^full == 0 {
		return 0, errNotAllowed
	}
	return int(n | full), nil
}

// longest is how many bytes the value of an option may have: a page. A list of that size takes milliseconds to read, where one that
// fills a request would take minutes, or all memory, for ranges that are written a few bytes each.
const longest = 4096

// maxVFs is above what any device can have: sriov_numvfs is 16 bits wide.
const maxVFs = 1<<16 - 1

// oneOf reads one of a few words.
func oneOf[T any](v string, words map[string]T) (*T, error) {
	t, ok := words[strings.ToLower(v)]
	if !ok {
		return nil, errNotAllowed
	}
	return &t, nil
}

// checkLock checks the names in lock=: those of options that a container could override; all stands for all of them.
func (c *config) checkLock() error {
	var open []string
	for _, o := range options {
		if o.For == ForBoth {
			open = append(open, o.Name)
		}
	}
	if slices.Equal(c.lock, []string{"all"}) {
		c.lock = open
	}
	for _, n := range c.lock {
		if !slices.Contains(open, n) {
			slices.Sort(open)
			return fmt.Errorf("option lock: %q is not allowed; allowed: all, or some of %s", n, strings.Join(open, ", "))
		}
	}
	return nil
}

// canonical is a user's options with lower-case keys, without those that the engine acts on itself.
func canonical(raw map[string]string) (map[string]string, error) {
	given := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		name := strings.ToLower(key)
		if slices.Contains(engineOptions, name) {
			continue
		}
		if _, twice := given[name]; twice {
			return nil, fmt.Errorf("option %s: given twice", name)
		}
		given[name] = strings.TrimSpace(raw[key])
	}
	return given, nil
}

// parseOptions turns the options of a network into its config. Keys are matched without regard to case.
func parseOptions(raw map[string]string) (*config, error) {
	given, err := canonical(raw)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		if _, ok := given[o.Name]; ok && o.For == ForContainer {
			return nil, fmt.Errorf("option %s: only for one container: docker run --network name=NETWORK,driver-opt=%s=VALUE",
				o.Name, o.Name)
		}
	}
	return parseGiven(given)
}

// parseContainerOptions is a network's config with what was said for one container on top.
func parseContainerOptions(network, own map[string]string) (*config, error) {
	c, err := parseOptions(network)
	if err != nil || len(own) == 0 {
		return c, err
	}
	if own, err = canonical(own); err != nil {
		return nil, err
	}
	given, err := canonical(network)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		o, err := findOption(containerOptions(), name)
		switch {
		case err != nil && slices.ContainsFunc(options, func(o Option) bool { return o.Name == name }):
			return nil, fmt.Errorf("option %s: cannot be given for one container; give it with docker network create", name)
		case err != nil:
			return nil, err
		case slices.Contains(c.lock, o.Name):
			return nil, fmt.Errorf("option %s: the network does not let containers change it (lock)", name)
		}
		given[name] = own[name]
	}
	return parseGiven(given)
}

// parseGiven parses options that have been found to be in their place.
func parseGiven(given map[string]string) (*config, error) {
	c := &config{mode: modeSRIOV, prefix: "eth"}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := parseOption(c, name, given[name]); err != nil {
			return nil, err
		}
	}
	if c.netdevice == "" {
		return nil, errors.New("option netdevice: missing; say which device to use: -o netdevice=NAME")
	}
	if err := forMode(c.mode, given); err != nil {
		return nil, err
	}
	return c, errors.Join(c.checkLock(), c.check())
}

// parseOption parses one option into c.
func parseOption(c *config, name, value string) error {
	o, err := findOption(options, name)
	if err != nil {
		return err
	}
	if value == "" {
		return fmt.Errorf("option %s: has no value; allowed: %s", name, o.Values)
	}
	if len(value) > longest {
		return fmt.Errorf("option %s: is %d bytes long; at most %d are allowed", name, len(value), longest)
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

// containerOptions are the rows of the table that can be given for a container.
func containerOptions() []Option {
	return slices.DeleteFunc(Options(), func(o Option) bool { return o.For == ForNetwork })
}

// findOption finds a row among some of the table's.
func findOption(among []Option, name string) (Option, error) {
	var names []string
	for _, o := range among {
		if o.Name == name {
			return o, nil
		}
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return Option{}, fmt.Errorf("option %s: unknown; known are %s", name, strings.Join(names, ", "))
}
