package option

import (
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/internal/opttable"
)

var (
	// partOfID matches the ID of a network, or enough of it: swarm's have 25 characters, docker network ls shows 12.
	partOfID = regexp.MustCompile(`^[0-9A-Za-z_-]{12,64}$`)
	// validPrefix leaves room for the number within the kernel's 15 characters for a name.
	validPrefix = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,9}$`)
	// validIfname matches names that the kernel and the paths of sysctls accept.
	validIfname = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)
	// validClass matches names that every version of CDI takes as the class of a device (pkg/parser, validateVendorOrClassName).
	validClass = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)
	// validFeature matches the names of offloads.
	validFeature = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
)

// pointer makes a parser return a pointer to the value, which tells a given value from none.
func pointer[T any](parse func(string) (T, error)) func(string) (*T, error) {
	return func(s string) (*T, error) {
		v, err := parse(s)
		return &v, err
	}
}

// text takes any text.
func text(s string) (string, error) { return s, nil }

// upTo returns a parser of text of up to so many bytes.
func upTo(bytes int) func(string) (string, error) {
	return func(s string) (string, error) {
		if len(s) > bytes {
			return "", opttable.ErrNotAllowed
		}
		return s, nil
	}
}

// matching returns a parser of text that a pattern matches.
func matching(pattern *regexp.Regexp) func(string) (string, error) {
	return func(s string) (string, error) {
		if !pattern.MatchString(s) {
			return "", opttable.ErrNotAllowed
		}
		return s, nil
	}
}

// ifname parses the name of a device in a container. It has a lo already; all and default are the kernel's own below
// /proc/sys/net/ipv4/conf (net/core/neighbour.c and net/ipv4/devinet.c, Linux 6.12).
func ifname(s string) (string, error) {
	return allowed(s, validIfname.MatchString(s) && !slices.Contains([]string{"lo", "all", "default"}, s))
}

// allowed turns the result of a parser of package number into that of an option's.
func allowed[T any](value T, ok bool) (T, error) {
	if !ok {
		return value, opttable.ErrNotAllowed
	}
	return value, nil
}

// vfRef parses what names a VF; if it is a number, it is an index.
func vfRef(s string) (string, error) {
	_, err := strconv.Atoi(strings.TrimSpace(s))
	_, index := number.Parse(s, 0, maxVFs)
	return allowed(s, index || err != nil && strings.TrimSpace(s) == s)
}

// within returns a parser of a decimal number from low to high.
func within(low, high int) func(string) (int, error) {
	return func(s string) (int, error) { return allowed(number.Parse(s, low, high)) }
}

// boolean parses yes and no as people write them.
func boolean(s string) (bool, error) {
	yes := slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(s))
	if !yes && !slices.Contains([]string{"0", "false", "no", "off"}, strings.ToLower(s)) {
		return false, opttable.ErrNotAllowed
	}
	return yes, nil
}

// oneOf returns a parser of a few words, in any case, each of which stands for a value.
func oneOf[T any](values map[string]T) func(string) (T, error) {
	return func(s string) (T, error) {
		v, ok := values[strings.ToLower(s)]
		if !ok {
			return v, opttable.ErrNotAllowed
		}
		return v, nil
	}
}

// word returns a parser of a few words, in any case.
func word(allowed ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		s = strings.ToLower(s)
		if !slices.Contains(allowed, s) {
			return "", opttable.ErrNotAllowed
		}
		return s, nil
	}
}

// words parses words that are separated by commas, in any case.
func words(s string) ([]string, error) {
	return strings.Split(strings.ToLower(strings.ReplaceAll(s, " ", "")), ","), nil
}

// parseVLAN parses the option vlan: a VLAN ID, or keep.
func parseVLAN(n *Network, text string) error {
	if n.KeepVLAN = strings.EqualFold(text, "keep"); n.KeepVLAN {
		n.VLAN = nil
		return nil
	}
	id, err := within(0, 4094)(text)
	n.VLAN = &id
	return err
}

// maxVFs is above what any device can have: sriov_numvfs is 16 bits wide.
const maxVFs = 1<<16 - 1

// ranges parses indexes of VFs: "0-3,7". Each is in the result once, in the order of the text.
func ranges(v string) ([]int, error) { return allowed(number.ParseList(v, maxVFs)) }

// maxVLAN is the highest VLAN that a frame can be in.
const maxVLAN = 4094

// trunk parses a list of VLANs, "100-200,300", and returns it in the form of hw.VLANRanges.
func trunk(v string) (string, error) {
	ids, ok := number.ParseList(v, maxVLAN)
	return allowed(hw.VLANRanges(ids), ok && !slices.Contains(ids, 0))
}

// bridgeName parses the name of a bridge. One of Open vSwitch is refused with another word than a name that cannot be one, see checkPort.
func bridgeName(v string) (string, error) {
	return allowed(v, validIfname.MatchString(strings.TrimPrefix(v, ofOpenVSwitch)))
}

// ofOpenVSwitch introduces the name of a bridge of Open vSwitch.
const ofOpenVSwitch = "ovs:"

// validPKey matches the forms of a P_Key.
var validPKey = regexp.MustCompile(`^(0[xX][0-9a-fA-F]{1,4}|[1-9][0-9]{0,4})$`)

// pkey parses a P_Key. The top bit says that the member is a full one, which alone can talk to all (InfiniBand
// Architecture 10.9.3); the kernel sets it as well (drivers/infiniband/ulp/ipoib/ipoib_main.c, create_child_store, Linux 6.12).
func pkey(v string) (int, error) {
	const full = 0x8000
	n, err := strconv.ParseUint(v, 0, 16)
	if err != nil || n&^full == 0 || !validPKey.MatchString(v) {
		return 0, opttable.ErrNotAllowed
	}
	return int(n | full), nil
}

// canonicalPKey returns a P_Key that an older version accepted in a form that pkey accepts, and any other text as it is.
func canonicalPKey(v string) string {
	n, err := strconv.ParseUint(strings.TrimSpace(v), 0, 16)
	if err != nil {
		return v
	}
	return fmt.Sprintf("%#04x", n)
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

// guid parses a user's GUID into the form that devices show.
func guid(s string) (hw.GUID, error) {
	octets, err := net.ParseMAC(s)
	other := func(b byte) bool { return b != octets[0] }
	if err != nil || len(octets) != 8 || !slices.ContainsFunc(octets, other) && (octets[0] == 0 || octets[0] == 0xff) {
		return "", opttable.ErrNotAllowed
	}
	return hw.GUID(octets.String()), nil
}

// numa parses "none", "auto" or the number of a node.
func numa(v string) (NUMA, error) {
	switch strings.ToLower(v) {
	case "none":
		return NUMA{}, nil
	case "auto":
		return NUMA{Auto: true}, nil
	}
	node, err := within(0, math.MaxInt32)(v)
	return NUMA{Given: err == nil, Node: node}, err
}

// near parses "none", "gpu" or a PCI address.
func near(v string) (string, error) {
	switch lower := strings.ToLower(v); lower {
	case "none":
		return "", nil
	case NearGPU:
		return lower, nil
	}
	return allowed(hw.ParsePCI(v))
}

// features parses offloads: "gro=off,tso=on".
func features(v string) (hw.Features, error) {
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

// cores parses which CPUs serve the interrupts: "2,4-7", numa, or none for those that already do.
func cores(v string) (hw.Cores, error) {
	switch strings.ToLower(v) {
	case "none":
		return hw.Cores{}, nil
	case "numa":
		return hw.Cores{Near: true}, nil
	}
	cpus, err := hw.ParseCPUs(v)
	return hw.Cores{CPUs: cpus}, err
}
