package netdrv

import (
	"context"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

const stickyPrefix = "sticky/"

// stickyRecord remembers which device a container had, for the next that comes with the same key. It is a hint: the
// device may be somebody else's by then. It goes with its network.
type stickyRecord struct {
	Version int    `json:"v"`
	Key     string `json:"key"`
	Device  hw.ID  `json:"device"`
	Guessed bool   `json:"guessed,omitempty"` // as in a mark
}

// A mark is what a container is known again by.
type mark struct {
	key     string
	guessed bool // the user did not say it for this: carrier and the wanted NUMA node come first
}

// marks are those of the container that the network's options are now for, the surest first. Its address is one because
// neighbours remember for up to a minute which MAC an address had.
func (n *network) marks() []mark {
	switch {
	case n.Mode != option.ModeSRIOV || n.Bond != "":
		return nil
	case n.Sticky != "":
		return []mark{{n.Sticky, false}}
	case n.MAC != "":
		return []mark{{string(n.MAC), true}} // the engine may have made it up
	}
	var all []mark
	if n.container != "" {
		all = append(all, mark{"container " + n.container, true})
	}
	if n.address != "" {
		all = append(all, mark{"address " + n.address, true})
	}
	return all
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

// preferred is what is remembered of the container that the network's options are now for; its Device is "" for nothing.
func (d *Driver) preferred(ctx context.Context, n *network) (stickyRecord, error) {
	for _, m := range n.marks() {
		r, err := read[stickyRecord](ctx, d.store, stickyRecordKey(n.ID, m.key))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		return r.rec, err
	}
	return stickyRecord{}, nil
}

// remember is what to write so that the container gets the device again. Of containers with guessed marks only the last
// one that had a device is remembered: such marks may be new with every container.
func (d *Driver) remember(ctx context.Context, n *network, device hw.ID) ([]write, error) {
	marks := n.marks()
	if len(marks) == 0 {
		return nil, nil
	}
	all, err := list[stickyRecord](ctx, d.store, stickyPrefix+n.ID+"/")
	if err != nil {
		return nil, err
	}
	var writes []write
	for _, r := range all {
		kept := slices.ContainsFunc(marks, func(m mark) bool { return m.key == r.rec.Key })
		if r.rec.Guessed && r.rec.Device == device && !kept {
			writes = append(writes, remove(r.kv.Key))
		}
	}
	for _, m := range marks {
		writes = append(writes, put(stickyRecordKey(n.ID, m.key), stickyRecord{recordVersion, m.key, device, m.guessed}))
	}
	return writes, nil
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
