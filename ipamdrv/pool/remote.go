package pool

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// An address that an IPAM server has leased is recorded twice. Before the server is asked, and from the transaction that releases the lease here
// until the server has answered that it is released there, its key is in the ledger: what is leased under it at the server, if anything is, no
// container has. In between the lease has the key. So a process that ends at any time neither loses an address of the server nor releases one
// that a container has.

// remotePrefix is how the records of keys begin whose leases are to be released at the IPAM server: ipam/remote/KEY.
const remotePrefix = "ipam/remote/"

// A RemoteKey is the record of a key.
type RemoteKey struct {
	record.Extra
	V     int       `json:"v"`
	Pool  string    `json:"pool,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// UsesRemote returns true if an IPAM server leases the pool's addresses.
func UsesRemote(p *Pool) bool {
	c := p.cache.config
	return c.Remote != "" && !(c.SLAAC && p.cache.Prefix.Addr().Is6())
}

// BeginRemote records a key before the server is asked for an address under it.
func (l Ledger) BeginRemote(ctx context.Context, id, key string) error {
	ops, err := owed(id, Lease{Remote: key})
	if err == nil {
		_, err = l.Commit(ctx, nil, ops...)
	}
	return err
}

// EndRemote removes the record of a key, which the server has released.
func (l Ledger) EndRemote(ctx context.Context, key string) error {
	_, err := l.Commit(ctx, nil, store.Del(remotePrefix+key))
	return err
}

// RemoteKeys lists the keys that have a record.
func (l Ledger) RemoteKeys(ctx context.Context) ([]string, error) {
	all, err := l.keys(ctx, remotePrefix)
	for i := range all {
		all[i] = strings.TrimPrefix(all[i], remotePrefix)
	}
	return all, err
}

// owed returns what the transaction writes besides that ends a lease: what is owed to the server that has leased it.
func owed(id string, ended Lease) ([]store.Op, error) {
	if ended.Remote == "" {
		return nil, nil
	}
	op, err := record.Put(remotePrefix+ended.Remote, RemoteKey{V: RecordVersion, Pool: id, Since: time.Now().UTC()})
	return []store.Op{op}, err
}

// owedFor is owed for the lease in a record. Of one that cannot be read nothing is known.
func owedFor(id string, kv store.KV) ([]store.Op, error) {
	if !bytes.Contains(kv.Value, []byte(`"remote":`)) { // of thousands that are removed with a pool
		return nil, nil
	}
	ended, err := DecodeLease(kv)
	if err != nil {
		return nil, nil // it can be released
	}
	return owed(id, ended)
}
