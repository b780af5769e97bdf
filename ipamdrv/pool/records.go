package pool

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// RecordVersion is the version of all records. A record of a newer version is refused; a field that an older one does not have is read as its
// zero value.
const RecordVersion = 1

// Versions are the versions of records that this code reads.
var Versions = record.Versions{Newest: RecordVersion}

// Prefixes of keys; ID is the pool's.
const (
	Prefix       = "ipam/pool/"   // ipam/pool/ID
	LeasePrefix  = "ipam/lease/"  // ipam/lease/ID/ADDRESS
	SharePrefix  = "ipam/share/"  // ipam/share/ID/SHARE, one for each network of a shared pool
	namePrefix   = "ipam/name/"   // ipam/name/FAMILY/NAME: the ID of the shared pool with this name
	carvedPrefix = "ipam/carved/" // ipam/carved/SUBNET: the ID of the pool that has this subnet of a default pool
)

// A Record is the record of a pool.
type Record struct {
	record.Extra
	V       int          `json:"v"`
	Subnet  netip.Prefix `json:"subnet"`
	Range   netip.Prefix `json:"range,omitzero"` // what --ip-range limits the choice to
	Created time.Time    `json:"created,omitzero"`
	Cursor  netip.Addr   `json:"cursor,omitzero"`  // the address that was allocated last
	Gateway netip.Addr   `json:"gateway,omitzero"` // it has a lease, too
	// Invented: the engine asked for a gateway, but for no particular address.
	Invented bool `json:"invented,omitempty"`
	// Options are the user's, as text.
	Options map[string]string `json:"options,omitempty"`
	// FromDefault: the subnet was allocated from a default pool.
	FromDefault bool `json:"carved,omitempty"`
	// Node is the owner of a pool that is not shared, in a store that nodes share.
	Node string `json:"node,omitempty"`
	// Network is the ID of the network of a pool that is not shared; "" for unknown.
	Network string `json:"network,omitempty"`
}

// ListFields implements [record.Lister].
func (r *Record) ListFields(c *record.Codec) {
	c.Version(&r.V)
	c.Prefix("subnet", &r.Subnet)
	c.Fail(!r.Subnet.IsValid()) // it is never omitted
	c.Prefix("range", &r.Range)
	c.Time("created", &r.Created)
	c.Addr("cursor", &r.Cursor)
	c.Addr("gateway", &r.Gateway)
	c.Bool("invented", &r.Invented)
	c.Map("options", r.Options)
	c.Bool("carved", &r.FromDefault)
	record.String(c, "node", &r.Node)
	record.String(c, "network", &r.Network)
}

// A ShareRecord is the record of one network of a shared pool.
type ShareRecord struct {
	record.Extra
	V       int       `json:"v"`
	Created time.Time `json:"created,omitzero"`
	Node    string    `json:"node,omitempty"`    // the owner, in a store that nodes share
	Network string    `json:"network,omitempty"` // as in a pool's record
}

// A Lease is the record of an address that is leased, or that was and is in cooldown.
type Lease struct {
	record.Extra
	V     int       `json:"v"`
	Kind  Kind      `json:"kind,omitempty"`
	Name  string    `json:"name,omitempty"` // of the container; only engines from 29 on send it
	MAC   string    `json:"mac,omitempty"`  // of the device; engines send it if they are asked to
	Since time.Time `json:"since,omitzero"` // of an address in cooldown: its release
	// Token is unique to one request. If the answer of the store is lost, it shows whose lease was written.
	Token string `json:"token,omitempty"`
	// Holders are the shares of a shared pool that have the address: one, or for a gateway any number.
	Holders []string `json:"holders,omitempty"`
	// Container: the address was requested when its network existed, so that a container has it.
	Container bool `json:"container,omitempty"`
	// Node is the node that has leased the address ahead. Of two nodes whose engines have one handle, as with copied disks, each has its own.
	// Of an address in cooldown, in a pool that nodes share, it is the node of the container that had it; "" for unknown.
	Node string `json:"node,omitempty"`
	// Via is the pool of the group that was full when this one gave the address in its place.
	Via string `json:"via,omitempty"`
	// DHCP is the lease of the address that a DHCP server has given, in a pool with the option dhcp.
	DHCP *dhcp.Lease `json:"dhcp,omitempty"`
	// Remote is the key under which an IPAM server has leased the address, in a pool with the option remote.
	Remote string `json:"remote,omitempty"`
}

// ListFields implements [record.Lister].
func (l *Lease) ListFields(c *record.Codec) {
	c.Version(&l.V)
	record.String(c, "kind", &l.Kind)
	record.String(c, "name", &l.Name)
	record.String(c, "mac", &l.MAC)
	c.Time("since", &l.Since)
	record.String(c, "token", &l.Token)
	c.Fail(len(l.Holders) > 0)
	c.Bool("container", &l.Container)
	record.String(c, "node", &l.Node)
	record.String(c, "via", &l.Via)
	c.Fail(l.DHCP != nil)
	record.String(c, "remote", &l.Remote)
}

// Kind says what an address is leased for.
type Kind string

// The kinds of leases.
const (
	Gateway    Kind = "gateway" // requested as the network's gateway
	Exact      Kind = "asked"   // requested by address: --aux-address, --ip, --ip6
	Any        Kind = "chosen"  // allocated
	Cooldown   Kind = "resting" // released, and not to be allocated for a while
	Prefetched Kind = "reserve" // leased ahead by a node
)

// TimeFormat is the format of times in errors.
const TimeFormat = "2006-01-02 15:04:05 MST"

// OfContainer returns true if a container has the address. An address that was requested before the network existed may be an
// --aux-address, which has no container.
func (l Lease) OfContainer() bool {
	return l.Kind == Any || l.Kind == Exact && (l.Container || l.Name != "")
}

// cooldown returns the record of the address after a release.
func (l Lease) cooldown(released time.Time) Lease {
	return Lease{V: RecordVersion, Kind: Cooldown, Name: l.Name, MAC: l.MAC, Since: released.UTC()}
}

// holder says who has the address a, for the error of a request that cannot have it.
func (l Lease) holder(a netip.Addr) string {
	who := "a container"
	switch {
	case l.Kind == Gateway:
		who = "the gateway"
	case l.Kind == Prefetched:
		who = "a node that has it ahead (option prefetch)"
	case l.Name != "":
		who = fmt.Sprintf("container %q", l.Name)
	case l.Container:
	case l.Kind == Exact && a.Is4():
		who = "an --aux-address or a container with this --ip"
	case l.Kind == Exact:
		who = "an --aux-address or a container with this --ip6"
	}
	if l.Since.IsZero() {
		return "by " + who
	}
	return fmt.Sprintf("since %s by %s", l.Since.UTC().Format(TimeFormat), who)
}

// task matches the name of a swarm task: service, slot or node, and an ID that is new with every task (swarmkit, api/naming).
var task = regexp.MustCompile(`^(.+\.[^.]+)\.[a-z0-9]{25}$`)

// Beginnings of identity keys.
const (
	nameKey = "name " // a container's name, which another node may have, too
	taskKey = "task " // a swarm service and its slot
	macKey  = "mac "
)

// ContainerName returns the name by which the container is recognized: that of the slot for a task of a swarm service; "" for unknown.
func (l Lease) ContainerName() string {
	if slot := l.slot(); slot != "" {
		return slot
	}
	return l.Name
}

// slot returns the service and the slot of a swarm task, "" for another container.
func (l Lease) slot() string {
	if strings.Count(l.Name, ".") < 2 { // of most containers; faster than the regular expression
		return ""
	}
	if found := task.FindStringSubmatch(l.Name); found != nil {
		return found[1]
	}
	return ""
}

// identityKeys returns the keys by which the container of a lease is recognized when it comes back, the best first.
func (l Lease) identityKeys() []string {
	var keys []string
	if slot := l.slot(); slot != "" {
		keys = append(keys, taskKey+slot)
	} else if l.Name != "" {
		keys = append(keys, nameKey+l.Name)
	}
	if l.MAC != "" {
		keys = append(keys, macKey+l.MAC)
	}
	return keys
}

// HasIdentity returns true if the container of a lease is recognized when it comes back.
func (l Lease) HasIdentity() bool { return l.Name != "" || l.MAC != "" }

// Key returns the key of a pool's record.
func Key(id string) string { return Prefix + id }

// LeaseKey returns the key of a lease.
func LeaseKey(id string, a netip.Addr) string {
	key := make([]byte, 0, 128)
	key = append(append(append(key, LeasePrefix...), id...), '/')
	return string(a.AppendTo(key))
}

// addressOf returns the address of the key of a lease.
func addressOf(key string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(key[strings.LastIndexByte(key, '/')+1:])
	return a, err == nil
}

// shareKey returns the key of a share's record.
func shareKey(h Handle) string { return SharePrefix + h.ID + "/" + h.Share }

// NameKey returns the key of the ID of the shared pool with a name; each family has names of its own.
func NameKey(name string, v6 bool) string {
	if v6 {
		return namePrefix + "6/" + name
	}
	return namePrefix + "4/" + name
}

// CarvedKey returns the key of the ID of the pool that has this subnet of a default pool.
func CarvedKey(subnet netip.Prefix) string { return carvedPrefix + subnet.String() }

// DecodeRecord reads a pool's record, and refuses one that cannot be used.
func DecodeRecord(kv store.KV) (Record, error) {
	rec, err := record.Decode[Record](kv, Versions)
	if err != nil {
		return Record{}, err
	}
	subnet, err := addr.ParsePrefix("subnet", rec.Subnet.String())
	if err == nil && rec.Range.IsValid() {
		err = addr.CheckInside(rec.Range, subnet)
	}
	if err != nil {
		return Record{}, fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	rec.Subnet, rec.Range = subnet, rec.Range.Masked()
	return rec, nil
}

// DecodeShare reads a share's record.
func DecodeShare(kv store.KV) (ShareRecord, error) {
	return record.Decode[ShareRecord](kv, Versions)
}

// DecodeLease reads a lease.
func DecodeLease(kv store.KV) (Lease, error) {
	return record.Decode[Lease](kv, Versions)
}
