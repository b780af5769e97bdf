package netdrv

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/hw"
)

// config is the options of a network, parsed. Pointers are nil for what was not given: an unset VLAN, VLAN 0 and VLAN N
// are three things.
type config struct {
	netdevice  string
	mode       string
	vlan       *int
	vlanQoS    *int
	vlanProto  *hw.VLANProto
	mac        hw.MAC // "" for none
	guid       hw.GUID
	privileged *bool
	spoofchk   *bool
	trust      *bool
	linkMode   *hw.LinkMode
	minRate    *int // Mbit/s
	maxRate    *int // Mbit/s
	mtu        *int
	txQLen     *int
	promisc    *bool
	allMulti   *bool
	queues     *int
	rxRing     *int
	txRing     *int
	features   hw.Features
	cores      hw.Cores
	lock       []string     // names of options
	numVFs     int          // 0: all
	container  string       // name of the container; "" for unknown
	address    string       // its first address; "" for none
	sticky     string       // by which the container is known again; "" for nothing
	prefer     stickyRecord // what it had before; its Device is "" for nothing
	vf         string       // the one VF that is wanted; "" for any
	vfs        []int        // indexes of the VFs that the network may use; none for all
	bond       string       // mode of the bond; "" for none
	policy     string       // policySpread or policyPack
	numa       numaWish
	prefix     string
	force      bool
	gateway    string // "", gatewayNone or gatewayAuto
	childMode  string // of a macvlan, ipvlan or IPoIB child
	pkey       int    // of an IPoIB child, 0 for its parent's
	endpoint   string // whom a device is claimed for
	replace    string // ID of a network that is no more, or the beginning of it; "" for none
}

// check refuses options that contradict each other.
func (c *config) check() error {
	tagged := c.vlan != nil && *c.vlan > 0
	switch {
	case c.vlanQoS != nil && *c.vlanQoS > 0 && !tagged:
		return errors.New("option vlan_qos: there is no tag to carry it; give vlan=1 to 4094 as well")
	case c.vlanProto != nil && *c.vlanProto != "" && !tagged:
		return errors.New("option vlan_proto: there is no tag to carry it; give vlan=1 to 4094 as well")
	case c.minRate != nil && c.maxRate != nil && *c.maxRate > 0 && *c.minRate > *c.maxRate:
		return fmt.Errorf("option min_tx_rate: %d is above max_tx_rate %d", *c.minRate, *c.maxRate)
	}
	return nil
}

// genericOptions are the driver options of a network, as they stand below com.docker.network.generic.
func genericOptions(all map[string]any) (map[string]string, error) {
	generic, ok := all[netlabel.GenericData].(map[string]any)
	if !ok {
		if v, present := all[netlabel.GenericData]; present && v != nil {
			return nil, fmt.Errorf("option %s: is a %T, not a map", netlabel.GenericData, v)
		}
		return nil, nil
	}
	options := make(map[string]string, len(generic))
	for k, v := range generic {
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("option %s: is a %T, not a text", k, v)
		}
		options[k] = s
	}
	return options, nil
}

// flag reads a boolean that the engine adds to a network's options.
func flag(all map[string]any, key string) bool {
	b, _ := all[key].(bool)
	return b
}

// containerRaw are the options that a user gave for one container (--network name=N,driver-opt=K=V), among the engine's.
func containerRaw(all map[string]any) (map[string]string, error) {
	own := map[string]string{}
	for k, v := range all {
		if strings.HasPrefix(k, netlabel.Prefix) {
			continue
		}
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("option %s: is a %T, not a text", k, v)
		}
		own[k] = s
	}
	return own, nil
}

// parseMAC reads a user's MAC in the form that devices show. It must be one that a device may have: six octets, not a
// group address, not zero.
func parseMAC(s string) (hw.MAC, error) {
	if s == "" {
		return "", nil
	}
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m[0]&1 == 1 || slices.Equal(m, make(net.HardwareAddr, 6)) {
		return "", fmt.Errorf("mac address %s: must be six octets, not zero and not a multicast address", s)
	}
	return hw.MAC(m.String()), nil
}
