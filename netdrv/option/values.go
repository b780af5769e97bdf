package option

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/opttable"
)

// A parser reads the value of an option into a network's values.
type parser = func(n *Network, value string) error

// number returns a parser of a decimal number from low to high.
func number(low, high int, field func(*Network) **int) parser {
	return func(n *Network, v string) error {
		i, err := inRange(v, low, high)
		if err == nil {
			*field(n) = &i
		}
		return err
	}
}

// boolean returns a parser of yes and no.
func boolean(field func(*Network) **bool) parser {
	return func(n *Network, v string) error {
		yes, err := parseBool(v)
		if err == nil {
			*field(n) = &yes
		}
		return err
	}
}

// word returns a parser of one of a few words, in any case.
func word(field func(*Network) *string, allowed ...string) parser {
	return func(n *Network, v string) error {
		if *field(n) = strings.ToLower(v); !slices.Contains(allowed, strings.ToLower(v)) {
			return opttable.ErrNotAllowed
		}
		return nil
	}
}

// oneOf returns a parser of one of a few words, in any case, each of which stands for a value.
func oneOf[T any](field func(*Network) **T, words map[string]T) parser {
	return func(n *Network, v string) error {
		value, ok := words[strings.ToLower(v)]
		if !ok {
			return opttable.ErrNotAllowed
		}
		*field(n) = &value
		return nil
	}
}

// matching returns a parser of text that a pattern matches.
func matching(pattern *regexp.Regexp, field func(*Network) *string) parser {
	return func(n *Network, v string) error {
		if *field(n) = v; !pattern.MatchString(v) {
			return opttable.ErrNotAllowed
		}
		return nil
	}
}

var (
	// partOfID matches the ID of a network, or enough of it: swarm's have 25 characters, docker network ls shows 12.
	partOfID = regexp.MustCompile(`^[0-9A-Za-z_-]{12,64}$`)
	// validPrefix leaves room for the number within the kernel's 15 characters for a name.
	validPrefix = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,9}$`)
	// validFeature matches the names of offloads.
	validFeature = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
)

// inRange parses a decimal number from low to high.
func inRange(v string, low, high int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, opttable.ErrNotAllowed
	}
	return n, nil
}

// parseBool parses yes and no as people write them.
func parseBool(v string) (bool, error) {
	yes := slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(v))
	if !yes && !slices.Contains([]string{"0", "false", "no", "off"}, strings.ToLower(v)) {
		return false, opttable.ErrNotAllowed
	}
	return yes, nil
}

// maxVFs is above what any device can have: sriov_numvfs is 16 bits wide.
const maxVFs = 1<<16 - 1

// parseRanges parses indexes of VFs: "0-3,7". Each is in the result once, in the order of the text.
func parseRanges(v string) ([]int, error) {
	var all []int
	seen := map[int]bool{}
	for _, part := range strings.Split(strings.ReplaceAll(v, " ", ""), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := inRange(from, 0, maxVFs)
		if err != nil {
			return nil, err
		}
		last, err := inRange(to, first, maxVFs)
		if err != nil {
			return nil, err
		}
		for i := first; i <= last; i++ {
			if !seen[i] {
				seen[i] = true
				all = append(all, i)
			}
		}
	}
	return all, nil
}

// parsePKey parses a P_Key. The top bit says that the member is a full one, which alone can talk to all (InfiniBand
// Architecture 10.9.3); the kernel sets it as well (drivers/infiniband/ulp/ipoib/ipoib_main.c, create_child_store, Linux 6.12).
func parsePKey(v string) (int, error) {
	const full = 0x8000
	n, err := strconv.ParseUint(v, 0, 16)
	if err != nil || n&^full == 0 {
		return 0, opttable.ErrNotAllowed
	}
	return int(n | full), nil
}

// ParseMAC parses a user's MAC into the form that devices show; "" is none. A device can have six octets that are neither zero nor a
// multicast address.
func ParseMAC(s string) (hw.MAC, error) {
	if s == "" {
		return "", nil
	}
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m[0]&1 == 1 || slices.Equal(m, make(net.HardwareAddr, 6)) {
		return "", fmt.Errorf("mac address %s: must be six octets, not zero and not a multicast address", s)
	}
	return hw.MAC(m.String()), nil
}

// parseGUID parses a user's GUID into the form that devices show.
func parseGUID(s string) (hw.GUID, error) {
	octets, err := net.ParseMAC(s)
	other := func(b byte) bool { return b != octets[0] }
	if err != nil || len(octets) != 8 || !slices.ContainsFunc(octets, other) && (octets[0] == 0 || octets[0] == 0xff) {
		return "", opttable.ErrNotAllowed
	}
	return hw.GUID(octets.String()), nil
}

// parseNUMA parses "none", "auto" or the number of a node.
func parseNUMA(v string) (NUMA, error) {
	switch strings.ToLower(v) {
	case "none":
		return NUMA{}, nil
	case "auto":
		return NUMA{Auto: true}, nil
	}
	node, err := strconv.Atoi(v)
	if err != nil || node < 0 {
		return NUMA{}, opttable.ErrNotAllowed
	}
	return NUMA{Given: true, Node: node}, nil
}

// parseFeatures parses offloads: "gro=off,tso=on".
func parseFeatures(v string) (hw.Features, error) {
	all := hw.Features{}
	for _, part := range strings.Split(strings.ToLower(strings.ReplaceAll(v, " ", "")), ",") {
		name, value, _ := strings.Cut(part, "=")
		on := value == "on"
		if was, twice := all[name]; !validFeature.MatchString(name) || !on && value != "off" || twice && was != on {
			return nil, opttable.ErrNotAllowed
		}
		all[name] = on
	}
	return all, nil
}

// parseCores parses which CPUs serve the interrupts: "2,4-7", numa, or none for those that already do.
func parseCores(v string) (hw.Cores, error) {
	switch strings.ToLower(v) {
	case "none":
		return hw.Cores{}, nil
	case "numa":
		return hw.Cores{Near: true}, nil
	}
	cpus, err := hw.ParseCPUs(v)
	return hw.Cores{CPUs: cpus}, err
}
