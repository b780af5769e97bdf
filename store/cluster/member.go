package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mellanox/passthrough/store"
)

// Keys: the node's ID is in its own ledger, the members are in the shared store.
const (
	keyIdentity  = "cluster/identity"
	prefixMember = "cluster/member/" // cluster/member/ID

	recordVersion = 1
)

// ErrRemoved: an operator has removed this node. Other nodes may have got what it held.
var ErrRemoved = errors.New("this node was declared lost")

// The record of a member is "VERSION STATE NAME", that of an ID is "VERSION ID".
const (
	stateUp   = "up"
	stateLost = "lost" // removed by an operator
)

// Member is this node as one of those that share a store. Its methods may be called concurrently.
type Member struct {
	own, shared store.Store
	name        string
	incarnation string // of this process
	machine     Machine

	mu     sync.Mutex // guards the fields below
	id     string
	cond   store.Cond // without a key until it is known
	placed bool       // this process was the node under this ID
	seen   time.Time  // when See last wrote
}

// New returns a Member. own is the node's own ledger, shared the store of all nodes; neither is used before the first call. name is the
// node's name for people.
func New(own, shared store.Store, name string) *Member {
	return &Member{own: own, shared: shared, name: name, incarnation: strings.ToLower(rand.Text())}
}

// ID returns the node's ID. It uses only the node's own ledger.
func (m *Member) ID(ctx context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.loadIDLocked(ctx)
	return m.id, err
}

// Cond returns the condition that this node is a member, which each of its writes to the shared store must have. The error matches
// [ErrRemoved] if it is no member any more.
func (m *Member) Cond(ctx context.Context) (store.Cond, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cond.Key != "" {
		return m.cond, nil
	}
	if err := m.loadIDLocked(ctx); err != nil {
		return store.Cond{}, err
	}
	err := m.joinLocked(ctx)
	return m.cond, err
}

// Refresh returns the current condition after the condition failed has not held.
func (m *Member) Refresh(ctx context.Context, failed store.Cond) (store.Cond, error) {
	m.mu.Lock()
	if m.cond == failed {
		m.cond = store.Cond{}
	}
	m.mu.Unlock()
	return m.Cond(ctx)
}

// loadIDLocked reads or makes the ID.
func (m *Member) loadIDLocked(ctx context.Context) error {
	if m.id != "" {
		return nil
	}
	kv, err := m.own.Get(ctx, keyIdentity)
	if errors.Is(err, store.ErrNotFound) {
		return m.setIDLocked(ctx, strings.ToLower(rand.Text()))
	}
	if err != nil {
		return fmt.Errorf("node's identity: %w", err)
	}
	m.id, err = versioned(kv)
	return err
}

// setIDLocked stores an ID and uses it from then on.
func (m *Member) setIDLocked(ctx context.Context, id string) error {
	value := fmt.Appendf(nil, "%d %s", recordVersion, id)
	if _, err := m.own.Txn(ctx, nil, []store.Op{store.Put(keyIdentity, value)}); err != nil {
		return fmt.Errorf("node's identity: %w", err)
	}
	m.id = id
	return nil
}

// joinLocked finds or makes the node's record as a member. A record that existed may be missing: the store is another one now.
func (m *Member) joinLocked(ctx context.Context) error {
	key := prefixMember + m.id
	kv, err := m.shared.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		kv, err = m.registerLocked(ctx, key)
	}
	if err != nil {
		return err
	}
	state, err := stateOf(kv)
	if err == nil && state != stateLost {
		if kv, err = m.takePlaceLocked(ctx, kv); err == nil {
			state, err = stateOf(kv)
		}
	}
	if err != nil {
		return err
	}
	if state == stateLost {
		return ErrRemoved
	}
	m.cond = store.Unchanged(kv)
	return nil
}

// stateOf returns the state in the record of a member.
func stateOf(kv store.KV) (string, error) {
	text, err := versioned(kv)
	state, _, _ := strings.Cut(text, " ")
	return state, err
}

// registerLocked makes the record, and reads it if it is not certain that it did: no other node makes one with this key.
func (m *Member) registerLocked(ctx context.Context, key string) (store.KV, error) {
	ctx = store.WithToken(ctx, "") // the context's token names another transaction
	value := member(stateUp, m.name)
	r, err := m.shared.Txn(ctx, []store.Cond{store.Absent(key)}, []store.Op{store.Put(key, value)})
	if err != nil && !errors.Is(err, store.ErrAmbiguous) {
		return store.KV{}, err
	}
	if err == nil && r.OK {
		return store.KV{Key: key, Value: value, Rev: r.Rev}, nil
	}
	kv, err := m.shared.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) { // callers would take ErrNotFound for one of their own records
		err = fmt.Errorf("%w: the node's record is not there yet; try again", store.ErrUnavailable)
	}
	return kv, err
}

// member encodes the record of a member.
func member(state, name string) []byte {
	return fmt.Appendf(nil, "%d %s %s", recordVersion, state, name)
}

// Renew gives a removed node a new ID. The caller must have dropped what the node held under the old one.
func (m *Member) Renew(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cond, m.placed = store.Cond{}, false
	return m.setIDLocked(ctx, strings.ToLower(rand.Text()))
}

// versioned returns the text of a record after its version.
func versioned(kv store.KV) (string, error) {
	version, rest, _ := strings.Cut(string(kv.Value), " ")
	n, err := strconv.Atoi(version)
	switch {
	case err != nil:
		return "", fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	case n > recordVersion:
		return "", fmt.Errorf("record %s: %w: it has version %d, this plugin knows %d", kv.Key, store.ErrNewer, n, recordVersion)
	}
	return rest, nil
}
