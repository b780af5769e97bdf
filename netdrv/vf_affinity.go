package netdrv

import (
	"context"
	"regexp"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
)

// identityKeys are those of the container that the network's options are now for, the surest first. Its address is one because
// neighbours remember for up to a minute which MAC an address had.
func (n *network) identityKeys() []alloc.IdentityKey {
	switch {
	case n.Mode != option.ModeSRIOV || n.Bond != "":
		return nil
	case n.Sticky != "":
		return []alloc.IdentityKey{{Text: n.Sticky}}
	case n.MAC != "":
		return []alloc.IdentityKey{{Text: string(n.MAC), Implicit: true}} // the engine may have made it up
	}
	var all []alloc.IdentityKey
	if n.container != "" {
		all = append(all, alloc.IdentityKey{Text: "container " + n.container, Implicit: true})
	}
	if n.address != "" {
		all = append(all, alloc.IdentityKey{Text: "address " + n.address, Implicit: true})
	}
	return all
}

// task is the name of a swarm task: service, slot or node, and an ID that is new with every task (swarmkit, api/naming).
var task = regexp.MustCompile(`^(.+\.[^.]+)\.[a-z0-9]{25}$`)

// nameOf is the name of the container that an endpoint is made for, without what changes when a swarm replaces it. Only
// the IPAM driver is ever told, by engines from 29 on.
func (d *Driver) nameOf(ctx context.Context, n *network, r *plugin.CreateEndpointRequest) string {
	if d.containerName == nil || r.Interface == nil {
		return ""
	}
	for _, address := range []string{r.Interface.Address, r.Interface.AddressIPv6} {
		for _, pool := range n.Pools {
			if name := d.containerName(ctx, pool, address); address != "" && name != "" {
				return task.ReplaceAllString(name, "$1")
			}
		}
	}
	return ""
}
