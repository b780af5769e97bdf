package netdrv

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"

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
}

// stickyKey is the key of a container's sticky record, "" for one that has nothing to be known again by: the key that the
// user gave, or the MAC that he chose.
func stickyKey(n *network) string {
	key := cmp.Or(n.sticky, string(n.mac))
	if key == "" || n.mode != modeSRIOV {
		return ""
	}
	return stickyPrefix + n.ID + "/" + hex.EncodeToString([]byte(key))
}

// preferred is the device that a container with the same key had before, "" for none.
func (d *Driver) preferred(ctx context.Context, n *network) (hw.ID, error) {
	key := stickyKey(n)
	if key == "" {
		return "", nil
	}
	r, err := read[stickyRecord](ctx, d.store, key)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return r.rec.Device, err
}

// remember is what to write so that the container gets the device again.
func remember(n *network, device hw.ID) []write {
	key := stickyKey(n)
	if key == "" {
		return nil
	}
	return []write{put(key, stickyRecord{recordVersion, cmp.Or(n.sticky, string(n.mac)), device})}
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
