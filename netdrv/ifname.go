package netdrv

import (
	"fmt"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/ledger"
)

// tooOldPrefix is the prefix that is answered beside an exact name. Only an engine that ignores the name uses it, and cannot: it is longer
// than the kernel's 15 characters for a name. So the container does not start under another name than the one it was to have, and the
// engine's error, "error renaming interface ... to ...", says why.
//
// Nothing that an engine sends to a plugin tells 29.8, the first that obeys the name, from 29.7 (libnetwork/drivers/remote, moby 29.7.2 and
// v2.0.0-beta.24 compared).
const tooOldPrefix = "ifname-needs-docker-29.8-or-newer-"

// interfaceName returns the names of an endpoint's device, which is source in the host; none of one without a netdev.
func interfaceName(source string, e ledger.Endpoint) InterfaceName {
	if source == "" {
		return InterfaceName{}
	}
	if e.Ifname == "" {
		return InterfaceName{SrcName: source, DstPrefix: e.Prefix}
	}
	return InterfaceName{SrcName: source, DstPrefix: tooOldPrefix, DstName: e.Ifname}
}

// checkIfname refuses an exact name if the engine is known to be too old for it: engines before 29 do not tell the IPAM driver for which
// container an address is.
func (x *endpoints) checkIfname(name string, i *plugin.EndpointInterface) error {
	if name == "" || x.requestedUnnamed == nil || !slices.ContainsFunc(addressesOf(i), x.requestedUnnamed) {
		return nil
	}
	return fmt.Errorf("option ifname: %s is not possible: this engine is older than 29, and names the devices of plugins by a prefix and a "+
		"number; engine 29.8 or newer is needed; or use the option prefix", name)
}
