package netdrv

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"regexp"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

const stickyPrefix = "sticky/"

// stickyRecord remembers which device a container had, for the next that comes with the same key. It is a hint: the
// device may be somebody else's by then. It goes with its network.
type stickyRecord struct {
	Version int    `json:"v"`
	Key     string `json:"key"`
	Device  hw.ID  `json:"device"`
	ByName  bool   `json:"by_name,omitempty"` // the key is the container's name, not something that the user said for this
}

// stickyKey is what a container is known again by: the key that the user gave, the MAC that he chose, or its name; "" for
// nothing.
func stickyKey(n *network) (key string, byName bool) {
	switch {
	case n.mode != modeSRIOV || n.bond != "":
		return "", false
	case n.sticky != "" || n.mac != "":
		return cmp.Or(n.sticky, string(n.mac)), false
	case n.container != "":
		return "container " + n.container, true
	}
	return "", false
}

func stickyRecordKey(nid, key string) string {
	return stickyPrefix + nid + "/" + hex.EncodeToString([]byte(key))
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

// preferred is the device that a container with the same key had before, "" for none.
func (d *Driver) preferred(ctx context.Context, n *network) (hw.ID, error) {
	key, _ := stickyKey(n)
	if key == "" {
		return "", nil
	}
	r, err := read[stickyRecord](ctx, d.store, stickyRecordKey(n.ID, key))
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return r.rec.Device, err
}

// remember is what to write so that the container gets the device again. Of containers that are known by their name only
// the last one that had a device is remembered: names may be new with every container.
func (d *Driver) remember(ctx context.Context, n *network, device hw.ID) ([]write, error) {
	key, byName := stickyKey(n)
	if key == "" {
		return nil, nil
	}
	var writes []write
	if byName {
		all, err := list[stickyRecord](ctx, d.store, stickyPrefix+n.ID+"/")
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if r.rec.ByName && r.rec.Device == device && r.rec.Key != key {
				writes = append(writes, remove(r.kv.Key))
			}
		}
	}
	return append(writes, put(stickyRecordKey(n.ID, key), stickyRecord{recordVersion, key, device, byName})), nil
}

// forgetSticky is what to write so that nothing of a network is remembered.
func (d *Driver) forgetSticky(ctx context.Context, nid string) ([]write, error) {
	all, err := list[stickyRecord](ctx, d.store, stickyPrefix+nid+"/")
	var writes []write
	for _, r := range all {
		writes = append(writes, remove(r.kv.Key))
	}
	return writes, err
}
