package netdrv

import (
	"fmt"
	"maps"
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
	privileged *bool
	numVFs     int // 0: all
	prefix     string
	gateway    string // "", gatewayNone or gatewayAuto
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

// checkContainerOptions refuses what a user said for one container only (--network name=N,driver-opt=K=V): there are no
// such options yet, and to ignore one would be to promise what does not happen. The engine's own keys pass.
func checkContainerOptions(all map[string]any) error {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(k, netlabel.Prefix) {
			return fmt.Errorf("option %s: cannot be given for one container; give it with docker network create", k)
		}
	}
	return nil
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
