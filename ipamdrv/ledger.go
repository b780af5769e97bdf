package ipamdrv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
)

// recordVersion is the version of both kinds of record. A record of a newer one is refused, a field that an older one
// does not have is read as its zero value.
const recordVersion = 1

// Where records lie; ID is the pool's, ADDRESS in its usual spelling.
const (
	poolPrefix   = "ipam/pool/"   // ipam/pool/ID
	leasePrefix  = "ipam/lease/"  // ipam/lease/ID/ADDRESS
	sharePrefix  = "ipam/share/"  // ipam/share/ID/SHARE, one for each network that shares a pool
	namePrefix   = "ipam/name/"   // ipam/name/FAMILY/NAME: the ID of the pool that is shared by this name
	carvedPrefix = "ipam/carved/" // ipam/carved/SUBNET: the ID of the pool that it was carved for
)

// poolRecord is what the ledger knows of a pool.
type poolRecord struct {
	V       int          `json:"v"`
	Subnet  netip.Prefix `json:"subnet"`
	Range   netip.Prefix `json:"range,omitzero"` // what --ip-range limits the choice to
	Created time.Time    `json:"created,omitzero"`
	Cursor  netip.Addr   `json:"cursor,omitzero"`  // the address that was chosen last
	Gateway netip.Addr   `json:"gateway,omitzero"` // it has a lease, too
	// Invented: the engine asked for a gateway, but for no certain address.
	Invented bool `json:"invented,omitempty"`
	// Options are the user's, in his words.
	Options map[string]string `json:"options,omitempty"`
	// Carved: the subnet is one of the default pools'.
	Carved bool `json:"carved,omitempty"`
	// Node is whose engine has the pool, if it is not shared, in a ledger that nodes share.
	Node string `json:"node,omitempty"`
	// Network is the ID of the network driver's network that has the pool, if it is not shared; "" for unknown.
	Network string `json:"network,omitempty"`
}

// shareRecord is what the ledger knows of a network that shares a pool.
type shareRecord struct {
	V       int       `json:"v"`
	Created time.Time `json:"created,omitzero"`
	Node    string    `json:"node,omitempty"`    // whose engine has it, in a ledger that nodes share
	Network string    `json:"network,omitempty"` // as in a pool's record
}

// leaseRecord is what the ledger knows of an address that somebody has, or had and that rests.
type leaseRecord struct {
	V     int       `json:"v"`
	Kind  leaseKind `json:"kind,omitempty"`
	Name  string    `json:"name,omitempty"` // the container's; only engines from 29 on tell
	MAC   string    `json:"mac,omitempty"`  // the device's; engines tell it when they are asked to
	Since time.Time `json:"since,omitzero"` // of one that rests: when it was released
	// Token tells the record of one request from that of another one for the same: when the answer of the store is lost it
	// shows whose was written.
	Token string `json:"token,omitempty"`
	// Holders are the shares of a shared pool that have the address: one, or of a gateway any number.
	Holders []string `json:"holders,omitempty"`
	// Container: it was asked for by address when its network was made already, so that a container has it.
	Container bool `json:"container,omitempty"`
	// Via is the pool that was asked for an address, when that was full and this one helped out.
	Via string `json:"via,omitempty"`
}

// rest is what becomes of a lease that ends now.
func (l leaseRecord) rest(now time.Time) leaseRecord {
	return leaseRecord{V: recordVersion, Kind: kindResting, Name: l.Name, MAC: l.MAC, Since: now.UTC()}
}

// leaseKind says how an address came to be somebody's.
type leaseKind string

const (
	kindGateway leaseKind = "gateway" // requested as the network's gateway
	kindAsked   leaseKind = "asked"   // requested by address: --aux-address, --ip, --ip6
	kindChosen  leaseKind = "chosen"  // chosen by us
	kindResting leaseKind = "resting" // nobody's; released, and not to be chosen for a while
	kindReserve leaseKind = "reserve" // a node's, which has it for nobody yet
)

// timeFormat is how times are written in errors.
const timeFormat = "2006-01-02 15:04:05 MST"

// holder says who has an address, for the error of the one who cannot have it.
func (l leaseRecord) holder(a netip.Addr) string {
	who := "a container"
	switch {
	case l.Kind == kindGateway:
		who = "the gateway"
	case l.Kind == kindReserve:
		who = "a node that has it ahead (option prefetch)"
	case l.Name != "":
		who = fmt.Sprintf("container %q", l.Name)
	case l.Container:
	case l.Kind == kindAsked && a.Is4():
		who = "an --aux-address or a container with this --ip"
	case l.Kind == kindAsked:
		who = "an --aux-address or a container with this --ip6"
	}
	if l.Since.IsZero() {
		return "by " + who
	}
	return fmt.Sprintf("since %s by %s", l.Since.UTC().Format(timeFormat), who)
}

// poolKey is the key of a pool's record.
func poolKey(id string) string { return poolPrefix + id }

// leaseKey is the key of a lease's record.
func leaseKey(id string, a netip.Addr) string { return leasePrefix + id + "/" + a.String() }

// shareKey is the key of a share's record.
func shareKey(h handle) string { return sharePrefix + h.id + "/" + h.share }

// nameKey is the key of the ID of the pool that is shared by a name; each family has names of its own.
func nameKey(name string, v6 bool) string {
	if v6 {
		return namePrefix + "6/" + name
	}
	return namePrefix + "4/" + name
}

// carvedKey is the key of the ID of the pool that a subnet was carved for.
func carvedKey(subnet netip.Prefix) string { return carvedPrefix + subnet.String() }

// put is the operation that writes record under key. It fails on a clock that is thousands of years off.
func put(key string, record any) (store.Op, error) {
	raw, err := json.Marshal(record)
	if err != nil {
		return store.Op{}, fmt.Errorf("record %s: %w", key, err)
	}
	return store.Put(key, raw), nil
}

// decode reads kv into record, whose version is in v.
func decode(kv store.KV, record any, v *int) error {
	if err := json.Unmarshal(kv.Value, record); err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	if *v > recordVersion {
		return fmt.Errorf("record %s: %w: it has version %d, this plugin knows %d", kv.Key, store.ErrNewer, *v, recordVersion)
	}
	return nil
}

// decodePool reads a pool's record and refuses one that cannot be worked with.
func decodePool(kv store.KV) (poolRecord, error) {
	var rec poolRecord
	if err := decode(kv, &rec, &rec.V); err != nil {
		return poolRecord{}, err
	}
	subnet, err := parsePrefix("subnet", rec.Subnet.String())
	if err == nil && rec.Range.IsValid() {
		err = checkInside(rec.Range, subnet)
	}
	if err != nil {
		return poolRecord{}, fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	rec.Subnet, rec.Range = subnet, rec.Range.Masked()
	return rec, nil
}

// decodeLease reads a lease's record.
func decodeLease(kv store.KV) (leaseRecord, error) {
	var rec leaseRecord
	err := decode(kv, &rec, &rec.V)
	return rec, err
}

// ledger is the driver's view of the store.
type ledger struct {
	store store.Store
	node  *node // nil when nobody shares it
	far   bool  // it is one that nodes share, and takes a limited number of operations at once
}

// leases calls fn with every leased address of a pool.
func (l ledger) leases(ctx context.Context, id string, fn func(a netip.Addr, kv store.KV) error) error {
	prefix := leasePrefix + id + "/"
	return l.store.Range(ctx, prefix, func(kv store.KV) error {
		a, err := netip.ParseAddr(strings.TrimPrefix(kv.Key, prefix))
		if err != nil {
			return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
		}
		return fn(a, kv)
	})
}

// keys lists the keys under a prefix.
func (l ledger) keys(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	err := l.store.Range(ctx, prefix, func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	})
	return keys, err
}

// errChanged says that a record is not as this process left it: another node of a cluster wrote to the ledger, or another
// request of this one. What is in RAM is made again from the ledger then, and the request tried again.
var errChanged = errors.New("the ledger was changed by somebody else; try again")

// commit runs one transaction, whose first operation must change its record, if this node is one of those that share the
// ledger. When the answer is lost it looks whether that happened: then the result is OK, with revision 0 because the true
// one is not known.
func (l ledger) commit(ctx context.Context, conds []store.Cond, ops ...store.Op) (store.Result, error) {
	if l.node != nil {
		member, err := l.node.member.Cond(ctx)
		if err != nil {
			return store.Result{}, err
		}
		conds = append([]store.Cond{member}, conds...)
	}
	r, err := l.store.Txn(ctx, conds, ops)
	if l.node != nil && err == nil && !r.OK && r.Failed == conds[0] {
		if _, err = l.node.member.Refresh(ctx, conds[0]); err == nil {
			err = errChanged
		}
		return r, err
	}
	if !errors.Is(err, store.ErrAmbiguous) {
		return r, err
	}
	kv, readErr := l.store.Get(ctx, ops[0].Key)
	switch {
	case errors.Is(readErr, store.ErrNotFound) && ops[0].Value == nil,
		readErr == nil && ops[0].Value != nil && bytes.Equal(kv.Value, ops[0].Value):
		return store.Result{OK: true}, nil
	case readErr != nil && !errors.Is(readErr, store.ErrNotFound):
		return store.Result{}, fmt.Errorf("%w (%w)", err, readErr)
	}
	return store.Result{}, err
}
