package invariant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// Ledger is the records of the plugin, with the fields that are checked here.
type Ledger struct {
	Networks    map[string]Network // by ID
	Endpoints   map[string]Endpoint
	Allocations map[string]Allocation // by device
	Sharings    map[string]Sharing    // by the PF's PCI address
	Pools       map[string]Pool       // by ID
	Leases      []Lease
	Shares      map[string]bool   // POOL/SHARE
	Names       map[string]string // pool by FAMILY/NAME
	Carved      map[string]string // pool by subnet

	Node      Node              // with a shared store
	Members   map[string]string // nodes of the shared store, "STATE NAME" by ID
	Shared    bool              // there is a shared store, see ReadShared
	Misplaced []string          // records in the wrong one of the two stores

	Keys []string // of all records
}

// Network is a network's record.
type Network struct {
	ID      string            `json:"id"`
	Options map[string]string `json:"options"`
	Devices []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"devices"`
	HostDevice struct {
		ID string `json:"id"`
	} `json:"host_device"`
	Owner   string   `json:"owner"`    // kind, "" for an engine
	PoolIDs []string `json:"pool_ids"` // handles of an owner's network
}

// Endpoint is an endpoint's record.
type Endpoint struct {
	Network string `json:"network"`
	ID      string `json:"id"`
	Device  string `json:"device"`
	Owner   Owner  `json:"owner"`
	Leases  []struct {
		Pool  string     `json:"pool"` // a handle
		Addr  netip.Addr `json:"addr"`
		Token string     `json:"token"`
	} `json:"leases"` // of an owner's endpoint
}

// Owner is who has an endpoint; the zero value for an engine.
type Owner struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// Allocation is the record of an allocated device.
type Allocation struct {
	Device   string `json:"device"`
	Mode     string `json:"mode"`
	PF       string `json:"pf"`
	VF       int    `json:"vf"`
	Label    string `json:"label"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Network  string `json:"network"`
	Endpoint string `json:"endpoint"`
	Parent   string `json:"parent"`
	PartOf   string `json:"part_of"`
	Owner    Owner  `json:"owner"`
	Announce []string
	Bond     *struct{ Key string }
	Spec     struct {
		MAC             string
		VLAN            struct{ ID, QoS int }
		Spoofchk, Trust bool
		Need            map[string]int
	} `json:"wish"`
}

// Sharing is the record of a PF whose VFs the plugin created.
type Sharing struct {
	PCI    string `json:"pci"`
	NumVFs int    `json:"numvfs"`
	Done   bool   `json:"done"`
}

// Pool is a pool's record.
type Pool struct {
	Subnet  netip.Prefix      `json:"subnet"`
	Options map[string]string `json:"options"`
	Carved  bool              `json:"carved"`
}

// Lease is the record of an address of a pool.
type Lease struct {
	Pool    string     `json:"-"`
	Address netip.Addr `json:"-"`
	Kind    string     `json:"kind"`
	Token   string     `json:"token"`
	Holders []string   `json:"holders"`
}

// LeasesOf counts the leases of the pool that the engine knows by a handle.
func (l *Ledger) LeasesOf(handle string) (n int) {
	pool, _, _ := strings.Cut(strings.TrimPrefix(handle, "v1:"), ".")
	for _, lease := range l.Leases {
		if lease.Pool == pool {
			n++
		}
	}
	return n
}

// ReadLedger reads the ledger in a plugin's state directory, also while the plugin runs: the plugin has the file locked, so a copy
// is read that was taken while nothing was written. The directory may have no ledger yet.
func ReadLedger(stateDir string) (*Ledger, error) {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, copied := filepath.Join(stateDir, "ledger.db"), filepath.Join(dir, "ledger.db")
	if err := copyStill(path, copied); errors.Is(err, os.ErrNotExist) {
		return decodeAll(nil)
	} else if err != nil {
		return nil, err
	}
	s, err := boltstore.Open(copied)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return ReadStore(context.Background(), s)
}

// ReadStore reads a ledger that is open already, such as one in etcd.
func ReadStore(ctx context.Context, s store.Store) (*Ledger, error) {
	var all []store.KV
	err := s.Range(ctx, "", func(kv store.KV) error {
		all = append(all, store.KV{Key: kv.Key, Value: append([]byte(nil), kv.Value...)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return decodeAll(all)
}

// copyStill copies a file while no process writes to it.
func copyStill(from, to string) error {
	for range 100 {
		before, err := os.Stat(from)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		after, err := os.Stat(from)
		if err != nil {
			return err
		}
		// The clock of file times is coarse: two writes in short succession may have the same time.
		still := time.Since(after.ModTime()) > 10*time.Millisecond
		if still && before.ModTime().Equal(after.ModTime()) && before.Size() == after.Size() && os.SameFile(before, after) {
			return os.WriteFile(to, data, 0o600)
		}
		<-time.After(5 * time.Millisecond)
	}
	return fmt.Errorf("%s: is written to all the time", from)
}

// decodeAll sorts records by kind.
func decodeAll(all []store.KV) (*Ledger, error) {
	l := &Ledger{Networks: map[string]Network{}, Endpoints: map[string]Endpoint{}, Allocations: map[string]Allocation{},
		Sharings: map[string]Sharing{}, Pools: map[string]Pool{}, Shares: map[string]bool{}, Names: map[string]string{},
		Carved: map[string]string{}, Members: map[string]string{}, Node: Node{Local: map[string]bool{}, Prefetched: map[string]bool{}}}
	for _, kv := range all {
		l.Keys = append(l.Keys, kv.Key)
		if err := l.decode(kv.Key, kv.Value); err != nil {
			return nil, fmt.Errorf("record %s: %w", kv.Key, err)
		}
	}
	return l, nil
}

// decode reads one record.
func (l *Ledger) decode(key string, value []byte) error {
	kind, rest, _ := strings.Cut(key, "/")
	if kind == "ipam" {
		kind, rest, _ = strings.Cut(rest, "/")
	}
	switch kind {
	case "net":
		return into(l.Networks, rest, value)
	case "ep":
		return into(l.Endpoints, rest, value)
	case "dev":
		return into(l.Allocations, rest, value)
	case "pf":
		return into(l.Sharings, rest, value)
	case "pool":
		return into(l.Pools, rest, value)
	case "lease":
		return l.lease(rest, value)
	case "share":
		l.Shares[rest] = true
	case "name":
		l.Names[rest] = string(value)
	case "carved":
		l.Carved[rest] = string(value)
	case "node":
		l.node(rest, value)
	case "cluster":
		l.member(rest, value)
	}
	return nil
}

// into decodes a record into a map.
func into[T any](all map[string]T, key string, value []byte) error {
	var rec T
	err := json.Unmarshal(value, &rec)
	all[key] = rec
	return err
}

// lease reads POOL/ADDRESS.
func (l *Ledger) lease(key string, value []byte) error {
	var rec Lease
	if err := json.Unmarshal(value, &rec); err != nil {
		return err
	}
	pool, text, _ := strings.Cut(key, "/")
	address, err := netip.ParseAddr(text)
	rec.Pool, rec.Address = pool, address
	l.Leases = append(l.Leases, rec)
	return err
}
