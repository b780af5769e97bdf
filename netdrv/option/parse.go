package option

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/internal/number"
)

// longest is how many bytes the value of an option may have: a page. A list of that size takes milliseconds to read. One that
// fills a request would take minutes, or all memory, for ranges that are written in a few bytes each.
const longest = 4096

// Labels that the engine itself acts on for every driver, and sends along (engine 28.5: libnetwork/netlabel/labels.go,
// daemon/network.go, libnetwork/network.go). They also come from default-network-opts of the engine's configuration.
const (
	labelEnableIPv4 = "com.docker.network.enable_ipv4"
	labelEnableIPv6 = "com.docker.network.enable_ipv6"
	// LabelMTU is for the driver: the same as the option mtu, which is stronger.
	LabelMTU = "com.docker.network.driver.mtu"
)

// engineOptions are the labels of a network that need nothing of this driver.
var engineOptions = []string{
	"com.docker.network.advertise_addr_nmsgs",
	"com.docker.network.advertise_addr_ms",
	labelEnableIPv4,
	labelEnableIPv6,
}

// Labels of the engine that are options of this driver by another name, of a network and of a container. The option is stronger.
var (
	networkLabels   = map[string]string{LabelMTU: "mtu"}
	containerLabels = map[string]string{LabelMTU: "mtu", labelIfname: "ifname"}
)

// CheckFamilies returns an error if the labels that switch an address family on or off have not been obeyed. Engines before 28 do not
// know them, and would create the network silently. ipv4 and ipv6 say which families the engine gave the network.
func CheckFamilies(raw map[string]string, ipv4, ipv6 bool) error {
	for key, value := range raw {
		name, has, flag := strings.ToLower(key), ipv4, "--ipv4=false"
		switch name {
		case labelEnableIPv4:
		case labelEnableIPv6:
			has, flag = ipv6, "--ipv6"
		default:
			continue
		}
		want, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("option %s: %q is not allowed; allowed: true, false", name, value)
		}
		if want != has {
			return fmt.Errorf("option %s=%s: this engine does not act on it, as engines before 28; say it with docker network create %s",
				name, value, flag)
		}
	}
	return nil
}

// OfNetwork returns a network's driver options from the engine's request, where they stand below com.docker.network.generic.
func OfNetwork(request map[string]any) (map[string]string, error) {
	generic, ok := request[netlabel.GenericData].(map[string]any)
	if !ok {
		if v, present := request[netlabel.GenericData]; present && v != nil {
			return nil, fmt.Errorf("option %s: is a %T, not a map", netlabel.GenericData, v)
		}
		return nil, nil
	}
	return texts(generic)
}

// OfContainer returns the options that the user gave for one container (--network name=N,driver-opt=K=V) from the engine's request,
// which has labels of the engine beside them. It refuses labels that neither the engine nor this driver obeys.
func OfContainer(request map[string]any) (map[string]string, error) {
	own := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(request)) {
		name := strings.ToLower(key)
		switch {
		case !strings.HasPrefix(name, netlabel.Prefix+".") || containerLabels[name] != "":
			own[key] = request[key]
		case !slices.Contains(served, key):
			return nil, fmt.Errorf("option %.64s: neither the engine nor this driver obeys it for a container; of the names that begin with "+
				"%s, users can give %s, %s and %s", key, netlabel.Prefix, labelIfname, labelSysctls, LabelMTU)
		}
	}
	return texts(own)
}

// texts refuses values that are not text.
func texts(all map[string]any) (map[string]string, error) {
	options := make(map[string]string, len(all))
	for k, v := range all {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("option %s: is a %T, not a text", k, v)
		}
		options[k] = s
	}
	return options, nil
}

// canonicalNumbers has the options whose values are numbers, with what makes a value that an older version accepted, such as 0100, one that
// [Parse] accepts.
var canonicalNumbers = map[string]func(string) string{
	"vlan": number.Canonical, "vlan_qos": number.Canonical, "min_tx_rate": number.Canonical, "max_tx_rate": number.Canonical,
	"mtu": number.Canonical, "txqlen": number.Canonical, "queues": number.Canonical, "ring_rx": number.Canonical, "ring_tx": number.Canonical,
	"numvfs": number.Canonical, "numa": number.Canonical, "vf": number.Canonical,
	"vfs": number.CanonicalList, "trunk": number.CanonicalList, "cores": number.CanonicalList, "pkey": canonicalPKey,
}

// ParseStored parses the options of a network's record. It accepts what older versions accepted.
func ParseStored(stored map[string]string) (*Network, error) {
	options := maps.Clone(stored)
	for key, value := range stored {
		name := strings.ToLower(key)
		if name == LabelMTU {
			name = "mtu"
		}
		if canonical := canonicalNumbers[name]; canonical != nil {
			options[key] = canonical(strings.TrimSpace(value))
		}
	}
	return Parse(options)
}

// Parse parses the options of a network. Keys are matched without regard to case. Errors name the option and the allowed values.
func Parse(raw map[string]string) (*Network, error) {
	given, err := canonical(raw, networkLabels)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		if _, ok := given[o.Name]; ok && o.For == ForContainer {
			return nil, fmt.Errorf("option %s: only for one container: docker run --network name=NETWORK,driver-opt=%s=VALUE",
				o.Name, o.Name)
		}
	}
	n := &Network{Mode: ModeSRIOV, Container: Container{Prefix: defaultPrefix}}
	if err := errors.Join(checkNames(given), parseAll(n, given)); err != nil {
		return nil, err
	}
	if n.Netdevice == "" && n.Parent == "" {
		return nil, errors.New("option netdevice: missing; say which device to use: -o netdevice=NAME")
	}
	if err := n.forMode(given); err != nil {
		return nil, err
	}
	if err := n.takeParent(); err != nil {
		return nil, err
	}
	if n.Force && n.UsesVFs() && n.Driver == "" {
		return nil, fmt.Errorf("option force: has no effect for mode=%s without driver=%s", ModeSRIOV, DriverVFIO)
	}
	if n.KeepVLAN && n.HasChildren() {
		return nil, fmt.Errorf("option vlan: keep is for mode=%s; say 0 to 4094", ModeSRIOV)
	}
	return n, errors.Join(n.checkLock(), n.checkHostAccess(), n.checkAnnounce(), n.checkPort(), n.check())
}

// takeParent uses the option parent as the netdevice, and refuses two devices.
func (n *Network) takeParent() error {
	if n.Parent != "" && n.Netdevice != "" && n.Netdevice != n.Parent {
		return fmt.Errorf("option parent: %.64s is not netdevice=%.64s; both name the device that has the children: give one of them", n.Parent, n.Netdevice)
	}
	n.Netdevice = cmp.Or(n.Netdevice, n.Parent)
	return nil
}

// ForContainer returns the values for one container: those of the network, overridden by the options that the user gave for the
// container. The network stays as it is.
func (n *Network) ForContainer(own map[string]string) (Container, error) {
	given, err := canonical(own, containerLabels)
	if err != nil {
		return Container{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		err := checkKnown(containerOptions(), name)
		switch {
		case err != nil && slices.ContainsFunc(options, func(o Option) bool { return o.Name == name }):
			return Container{}, fmt.Errorf("option %s: cannot be given for one container; give it with docker network create", name)
		case err != nil:
			return Container{}, err
		}
		if err := n.CheckLock(name); err != nil {
			return Container{}, err
		}
	}
	merged := *n
	if given["prefix"] != "" || given["ifname"] != "" {
		merged.Prefix, merged.Ifname = defaultPrefix, ""
	}
	if err := errors.Join(checkNames(given), parseAll(&merged, given)); err != nil {
		return Container{}, err
	}
	if err := n.forMode(given); err != nil {
		return Container{}, err
	}
	if err := n.forNetwork(given); err != nil {
		return Container{}, err
	}
	return merged.Container, errors.Join(merged.checkPort(), merged.check())
}

// CheckLock returns an error if the network does not let containers have an option.
func (n *Network) CheckLock(name string) error {
	if slices.Contains(n.Lock, name) {
		return fmt.Errorf("option %s: the network does not let containers change it (lock)", name)
	}
	return nil
}

// defaultPrefix is that of the engine's own drivers.
const defaultPrefix = "eth"

// checkNames refuses both kinds of a device's name at once.
func checkNames(given map[string]string) error {
	if given["ifname"] != "" && given["prefix"] != "" {
		return errors.New("option prefix: has no effect beside ifname, which is the whole name; give one of them")
	}
	return nil
}

// canonical returns a user's options with lower-case keys, without those that the engine acts on itself.
// labels are options by another name, unless these are given as well.
func canonical(raw, labels map[string]string) (map[string]string, error) {
	given := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		name := strings.ToLower(key)
		if slices.Contains(engineOptions, name) {
			continue
		}
		if option := labels[name]; option != "" {
			name = option
			if Has(raw, name) {
				continue
			}
		}
		if _, twice := given[name]; twice {
			return nil, fmt.Errorf("option %s: given twice", name)
		}
		given[name] = raw[key]
		if canonicalNumbers[name] == nil { // a number is given as it is, or refused
			given[name] = strings.TrimSpace(raw[key])
		}
	}
	return given, nil
}

// Has reports whether a user gave an option.
func Has[V any](raw map[string]V, name string) bool {
	for key := range raw {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// parseAll parses options into n, in alphabetical order, so that the same of several errors is always reported.
func parseAll(n *Network, given map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := parseOne(n, name, given[name]); err != nil {
			return err
		}
	}
	return nil
}

// parseOne parses one option into n.
func parseOne(n *Network, name, value string) error {
	o, err := known.Find(name)
	switch {
	case err != nil:
		return checkKnown(options, name)
	case value == "":
		return fmt.Errorf("option %s: has no value; allowed: %s", name, o.Values)
	case len(value) > longest:
		return fmt.Errorf("option %s: is %d bytes long; at most %d are allowed", name, len(value), longest)
	}
	return known.Parse(n, name, value)
}

// forMode refuses options that do nothing in the network's mode.
func (n *Network) forMode(given map[string]string) error {
	for _, o := range options {
		if _, ok := given[o.Name]; !ok {
			continue
		}
		if len(o.Modes) > 0 && !slices.Contains(o.Modes, n.Mode) {
			return fmt.Errorf("option %s: not for mode=%s, only for mode=%s", o.Name, n.Mode, strings.Join(o.Modes, ", "))
		}
		if n.Driver != "" && (o.OfNetdev || o.link != nil) {
			return fmt.Errorf("option %s: not with driver=%s, which leaves the container no netdev; the program sets that itself", o.Name, n.Driver)
		}
		if o.OneVF && n.Bond != "" {
			return fmt.Errorf("option %s: not with bond=%s, which takes a vf of each pf", o.Name, n.Bond)
		}
	}
	return nil
}

// forNetwork refuses options of a container that can only be given for a network in this mode.
func (n *Network) forNetwork(given map[string]string) error {
	for _, o := range options {
		if _, ok := given[o.Name]; ok && slices.Contains(o.NetworkModes, n.Mode) {
			return fmt.Errorf("option %s: cannot be given for one container with mode=%s; give it with docker network create", o.Name, n.Mode)
		}
	}
	return nil
}

// checkLock checks the names in lock=: options that can be given for a container. It replaces "all" by all of them.
func (n *Network) checkLock() error {
	var open []string
	for _, o := range containerOptions() {
		open = append(open, o.Name)
	}
	if slices.Equal(n.Lock, []string{"all"}) {
		n.Lock = open
	}
	for _, name := range n.Lock {
		if !slices.Contains(open, name) {
			slices.Sort(open)
			return fmt.Errorf("option lock: %q is not allowed; allowed: all, or some of %s", name, strings.Join(open, ", "))
		}
	}
	return nil
}
