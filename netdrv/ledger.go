package netdrv

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

// recordVersion is the version of every record that this code writes. A reader refuses newer ones.
const recordVersion = 1

// Keys of the records. Each kind has its own prefix, so that all of a kind can be listed.
const (
	networkPrefix  = "net/"
	endpointPrefix = "ep/"
	loanPrefix     = "dev/"
	sharingPrefix  = "pf/"
)

func networkKey(nid string) string       { return networkPrefix + nid }
func endpointKey(nid, eid string) string { return endpointPrefix + nid + "/" + eid }
func loanKey(id hw.ID) string            { return loanPrefix + string(id) }
func sharingKey(pci string) string       { return sharingPrefix + pci }

// networkRecord is a network with everything the user said about it: nothing of it is ever sent again by the engine.
type networkRecord struct {
	Version  int               `json:"v"`
	ID       string            `json:"id"`
	Options  map[string]string `json:"options"`
	Internal bool              `json:"internal,omitempty"`
	Pools    []string          `json:"pools,omitempty"`    // CIDRs, to tell whether a gateway is on the subnet
	Gateway4 string            `json:"gateway4,omitempty"` // for containers; "" for none
	Gateway6 string            `json:"gateway6,omitempty"`
	Gateways []string          `json:"gateways,omitempty"` // those of further subnets of a family
	Devices  []deviceRecord    `json:"devices"`            // its PFs, or the one device that is handed over whole
	Boot     string            `json:"boot,omitempty"`     // of a swarm's: in which the engine made or confirmed it last
	Process  string            `json:"process,omitempty"`  // likewise: the process of the plugin's in which it did
}

// deviceRecord is a device of a network.
type deviceRecord struct {
	ID   hw.ID  `json:"id"`
	Name string `json:"name"` // what it was called when the network was made
}

// has tells whether a device is one of the network's.
func (n networkRecord) has(id hw.ID) bool {
	return slices.ContainsFunc(n.Devices, func(d deviceRecord) bool { return d.ID == id })
}

// endpointRecord is a container's attachment to a network.
type endpointRecord struct {
	Version int    `json:"v"`
	Network string `json:"network"`
	ID      string `json:"id"`
	Device  hw.ID  `json:"device"`
	Prefix  string `json:"prefix"`
	MAC     hw.MAC `json:"mac,omitempty"` // as answered to the engine
	IPv4    bool   `json:"ipv4,omitempty"`
	IPv6    bool   `json:"ipv6,omitempty"`
	// Addrs are its addresses, with prefix lengths, as the engine told them. Ledgers of early versions lack them.
	Addrs []string `json:"addrs,omitempty"`
	// Subnets are those of its addresses, when the network has several of a family.
	Subnets []string `json:"subnets,omitempty"`
}

// loanRecord is a device that is not free: who has it, what it was before, and how far its way is. See loan.go. A link that
// is made to be lent has no snapshot: if there is one, it is its parent's.
type loanRecord struct {
	Version  int           `json:"v"`
	Device   hw.ID         `json:"device"`
	Mode     string        `json:"mode"`
	PF       string        `json:"pf,omitempty"` // PCI address of the VF's PF
	VF       int           `json:"vf"`           // index of the VF; 0 is a VF
	Label    string        `json:"label"`        // what people call the device
	State    loanState     `json:"state"`
	Reason   string        `json:"reason,omitempty"` // why it is quarantined
	Network  string        `json:"network"`
	Endpoint string        `json:"endpoint"`
	Boot     string        `json:"boot"` // the boot in which it began; what it says of the device ends with that
	Snapshot hw.Snapshot   `json:"snapshot"`
	Wish     hw.VFSpec     `json:"wish"`
	Shape    hw.LinkSpec   `json:"shape"`
	Tune     hw.TuningSpec `json:"tune,omitzero"`
	Parent   hw.ID         `json:"parent,omitempty"` // of a link that is made to be lent
	Child    *hw.ChildSpec `json:"child,omitempty"`  // likewise: how it is made
	Since    time.Time     `json:"since"`            // when it got into its state
	Bond     *hw.BondSpec  `json:"bond,omitempty"`   // of a bond's child: the bond, made of the loans that are part of this one
	// PartOf is the device whose loan this one ends with: this one is a port of that one's bond.
	PartOf hw.ID `json:"part_of,omitempty"`
}

// sharingRecord says that the VFs of a PF were made by the plugin, and how the PF was before. A PF without one had its
// VFs from somebody else, and keeps them.
type sharingRecord struct {
	Version int        `json:"v"`
	PCI     string     `json:"pci"`
	NumVFs  int        `json:"numvfs"`
	Boot    string     `json:"boot"` // the boot in which they were made
	Was     hw.Sharing `json:"was"`
	Done    bool       `json:"done"` // false: being made, or half made when a crash came
}

// rev is a record as it was read, with what is needed to write it back only if nobody else has.
type rev[T any] struct {
	rec T
	kv  store.KV
}

// decode reads a record and refuses one of a newer version.
func decode[T any](kv store.KV) (rev[T], error) {
	var v struct {
		Version int `json:"v"`
	}
	r := rev[T]{kv: kv}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return r, fmt.Errorf("ledger record %s: %w", kv.Key, err)
	}
	if v.Version < 1 {
		return r, fmt.Errorf("ledger record %s: has no version: %w", kv.Key, store.ErrCorrupt)
	}
	if v.Version > recordVersion {
		return r, fmt.Errorf("ledger record %s: has version %d, this plugin knows %d: %w",
			kv.Key, v.Version, recordVersion, store.ErrNewer)
	}
	if err := json.Unmarshal(kv.Value, &r.rec); err != nil {
		return r, fmt.Errorf("ledger record %s: %w", kv.Key, err)
	}
	return r, nil
}

// read returns the record under a key; the error matches store.ErrNotFound when there is none.
func read[T any](ctx context.Context, s store.Store, key string) (rev[T], error) {
	kv, err := s.Get(ctx, key)
	if err != nil {
		return rev[T]{}, err
	}
	return decode[T](kv)
}

// list returns all records whose key starts with prefix, in the order of their keys.
func list[T any](ctx context.Context, s store.Store, prefix string) ([]rev[T], error) {
	var all []rev[T]
	err := s.Range(ctx, prefix, func(kv store.KV) error {
		r, err := decode[T](kv)
		all = append(all, r)
		return err
	})
	return all, err
}

// A write is one record to be written, or removed when rec is nil.
type write struct {
	key string
	rec any
}

func put(key string, rec any) write { return write{key, rec} }

func remove(key string) write { return write{key, nil} }

// transact writes records if every condition holds.
func transact(ctx context.Context, s store.Store, conds []store.Cond, writes []write) (store.Result, error) {
	ops := make([]store.Op, 0, len(writes))
	for _, w := range writes {
		if w.rec == nil {
			ops = append(ops, store.Del(w.key))
			continue
		}
		b, err := json.Marshal(w.rec)
		if err != nil {
			return store.Result{}, fmt.Errorf("ledger record %s: %w", w.key, err)
		}
		ops = append(ops, store.Put(w.key, b))
	}
	return s.Txn(ctx, conds, ops)
}

// commit writes records under a condition that is expected to hold: the locks of this package see to that. If it does
// not, somebody else has written to the ledger.
func commit(ctx context.Context, s store.Store, cond store.Cond, writes ...write) (store.Result, error) {
	res, err := transact(ctx, s, []store.Cond{cond}, writes)
	if err == nil && !res.OK {
		err = fmt.Errorf("ledger record %s: was changed by somebody else", res.Failed.Key)
	}
	return res, err
}
