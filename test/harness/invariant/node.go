package invariant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
)

// Node is what a node has in its own ledger about the shared store.
type Node struct {
	Identity   string          // its ID in the shared store; "" before its first request
	Pending    []string        // operations in its outbox, and intents in its journal
	Local      map[string]bool // handles of its engine: POOL or POOL/SHARE
	Prefetched map[string]bool // HANDLE/ADDRESS of prefetched addresses
}

// ReadShared reads the ledger of a node whose pools and leases are in a shared store, as ReadLedger does. It must be the only node
// of that store.
func ReadShared(ctx context.Context, stateDir string, shared store.Store) (*Ledger, error) {
	l, err := ReadLedger(stateDir)
	if err != nil {
		return nil, err
	}
	there, err := ReadStore(ctx, shared)
	if err != nil {
		return nil, err
	}
	intents, err := readJournal(filepath.Join(stateDir, "journal"))
	if err != nil {
		return nil, err
	}
	l.Node.Pending = append(l.Node.Pending, intents...)
	l.join(there)
	return l, nil
}

// join adds the records of the shared store.
func (l *Ledger) join(there *Ledger) {
	for _, key := range l.Keys {
		if strings.HasPrefix(key, "ipam/") {
			l.Misplaced = append(l.Misplaced, key)
		}
	}
	for _, key := range there.Keys {
		if !slices.ContainsFunc(sharedKeys, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			l.Misplaced = append(l.Misplaced, key)
		}
	}
	l.Keys = append(l.Keys, there.Keys...)
	l.Pools, l.Leases, l.Shares, l.Names, l.Carved = there.Pools, there.Leases, there.Shares, there.Names, there.Carved
	l.Members, l.Shared = there.Members, true
}

// sharedKeys are the prefixes of the keys in a store that nodes share.
var sharedKeys = []string{"ipam/", "cluster/member/", "cluster/process/", "cluster/seen/"}

// readJournal lists the keys of a journal's entries. It opens a copy, because opening a journal rewrites it.
func readJournal(path string) (keys []string, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "journal")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		return nil, err
	}
	j := journal.New(copied)
	entries, err := j.Entries()
	for key := range entries {
		keys = append(keys, key)
	}
	return keys, errors.Join(err, j.Close())
}

// node reads a record of a node's own ledger about the shared store.
func (l *Ledger) node(key string, value []byte) {
	kind, rest, _ := strings.Cut(key, "/")
	handle, address, _ := strings.Cut(strings.TrimPrefix(rest, "v1:"), "/")
	handle = strings.Replace(handle, ".", "/", 1)
	switch kind {
	case "owed":
		l.Node.Pending = append(l.Node.Pending, fmt.Sprintf("%s %s", key, value))
	case "mine":
		l.Node.Local[handle] = true
	case "reserve":
		l.Node.Prefetched[handle+"/"+address] = true
	}
}

// member reads the identity of this node, or a member of the shared store.
func (l *Ledger) member(key string, value []byte) {
	_, says, _ := strings.Cut(string(value), " ")
	kind, id, _ := strings.Cut(key, "/")
	switch kind {
	case "identity":
		l.Node.Identity = says
	case "member":
		l.Members[id] = says
	}
}

// node checks that the node's own ledger agrees with the shared store.
func (f Facts) node(v *violations) {
	l := f.Ledger
	if !l.Shared {
		return
	}
	for _, key := range l.Misplaced {
		v.add("record %s: is in the wrong one of two stores", key)
	}
	for _, what := range l.Node.Pending {
		v.add("operation %s: is still in the outbox", what)
	}
	for id, says := range l.Members {
		if id != l.Node.Identity || !strings.HasPrefix(says, "up ") {
			v.add("member %s: is %s, and this node is %q", id, says, l.Node.Identity)
		}
	}
	f.mine(v)
	f.ahead(v)
}

// mine checks that the node's list of local handles is complete.
func (f Facts) mine(v *violations) {
	handles := map[string]bool{}
	for pool := range f.Ledger.Pools {
		handles[pool] = true
	}
	for share := range f.Ledger.Shares {
		pool, _, _ := strings.Cut(share, "/")
		delete(handles, pool)
		handles[share] = true
	}
	for handle := range handles {
		if !f.Ledger.Node.Local[handle] {
			v.add("handle %s: the node does not know that its engine has it", handle)
		}
	}
	for handle := range f.Ledger.Node.Local {
		if !handles[handle] {
			v.add("handle %s: the node takes it for its engine's, and it is not there", handle)
		}
	}
}

// ahead checks that the prefetched addresses of the node, and no others, are leased as such.
func (f Facts) ahead(v *violations) {
	leased := map[string]bool{}
	for _, lease := range f.Ledger.Leases {
		if lease.Kind != "reserve" {
			continue
		}
		key := strings.Join(append(append([]string{lease.Pool}, lease.Holders...), lease.Address.String()), "/")
		leased[key] = true
		if !f.Ledger.Node.Prefetched[key] {
			v.add("address %s: is leased ahead, and the node does not know", lease.Address)
		}
	}
	for key := range f.Ledger.Node.Prefetched {
		if !leased[key] {
			v.add("address %s: the node has it ahead, and it is not leased as such", key)
		}
	}
}
