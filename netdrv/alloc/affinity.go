package alloc

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sort"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

const affinityPrefix = "sticky/"

// Affinity is the record of the device that a container had, for the next container with the same identity key. It is a hint: the
// device may be in use by then. It is removed with its network. The zero value is that of a container that is not known.
type Affinity struct {
	record.Extra
	Version  int    `json:"v"`
	Key      string `json:"key"`
	Device   hw.ID  `json:"device"`
	Implicit bool   `json:"guessed,omitempty"` // as in IdentityKey
	// Since is when a container with the key last got the device; zero in ledgers of early versions.
	Since time.Time `json:"since,omitzero"`
}

// keysPerDevice is how many keys that users gave are remembered for one device. A build server that names each of its jobs must not let
// the ledger grow for as long as the network exists.
const keysPerDevice = 4

// An IdentityKey is what a container is recognized by when it comes again.
type IdentityKey struct {
	Text string
	// Implicit: the user did not give it for this purpose. Carrier and the preferred NUMA node come before such an affinity.
	Implicit bool
}

func affinityKey(nid, text string) string {
	return affinityPrefix + nid + "/" + hex.EncodeToString([]byte(text))
}

// Preferred returns the affinity of the first of the keys that is known on a network.
func (t *Table) Preferred(ctx context.Context, nid string, keys []IdentityKey) (Affinity, error) {
	for _, k := range keys {
		r, err := ledger.Get[Affinity](ctx, t.Store, affinityKey(nid, k.Text))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		return r.Rec, err
	}
	return Affinity{}, nil
}

// remember returns the writes that record an allocation's container. Of containers with implicit keys only the last one that had a
// device is remembered: such keys may be new with every container. Of explicit keys the last keysPerDevice are remembered.
func (t *Table) remember(ctx context.Context, a *Allocation) ([]ledger.Write, error) {
	if len(a.IdentityKeys) == 0 {
		return nil, nil
	}
	all, err := ledger.List[Affinity](ctx, t.Store, affinityPrefix+a.Network+"/")
	if err != nil {
		return nil, err
	}
	explicit := 0
	for _, k := range a.IdentityKeys {
		if !k.Implicit {
			explicit++
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Rec.Since.After(all[j].Rec.Since) }) // newest first
	var writes []ledger.Write
	for _, r := range all {
		same := slices.ContainsFunc(a.IdentityKeys, func(k IdentityKey) bool { return k.Text == r.Rec.Key })
		if same || r.Rec.Device != a.Device {
			continue
		}
		if !r.Rec.Implicit {
			explicit++
		}
		if r.Rec.Implicit || explicit > keysPerDevice {
			writes = append(writes, ledger.Del(r.KV.Key))
		}
	}
	now := time.Now().UTC()
	for _, k := range a.IdentityKeys {
		rec := Affinity{Version: ledger.Version, Key: k.Text, Device: a.Device, Implicit: k.Implicit, Since: now}
		if i := slices.IndexFunc(all, func(r ledger.Rev[Affinity]) bool { return r.Rec.Key == k.Text }); i >= 0 {
			rec.Extra = all[i].Rec.Extra
		}
		writes = append(writes, ledger.Put(affinityKey(a.Network, k.Text), rec))
	}
	return writes, nil
}

// ForgetAffinity returns the writes that remove all affinities of a network.
func (t *Table) ForgetAffinity(ctx context.Context, nid string) ([]ledger.Write, error) {
	all, err := ledger.List[Affinity](ctx, t.Store, affinityPrefix+nid+"/")
	var writes []ledger.Write
	for _, r := range all {
		writes = append(writes, ledger.Del(r.KV.Key))
	}
	return writes, err
}
