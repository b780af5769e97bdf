package netdrv

import (
	"context"
	"regexp"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// task is the name of a swarm task: service, slot or node, and an ID that is new with every task (swarmkit, api/naming).
var task = regexp.MustCompile(`^(.+\.[^.]+)\.[a-z0-9]{25}$`)

// nameOf returns the name of the container that an endpoint is created for, without what changes when a swarm replaces a task; "" if it
// is not known. Only the IPAM driver is told, by engines from 29 on.
func (d *Driver) nameOf(ctx context.Context, pools []string, i *plugin.EndpointInterface) string {
	if d.containerName == nil || i == nil {
		return ""
	}
	for _, address := range []string{i.Address, i.AddressIPv6} {
		for _, pool := range pools {
			if name := d.containerName(ctx, pool, address); address != "" && name != "" {
				return task.ReplaceAllString(name, "$1")
			}
		}
	}
	return ""
}
