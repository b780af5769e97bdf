package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// Where records lie: identity in the node's own ledger, members in the shared one.
const (
	keyIdentity  = "cluster/identity"
	prefixMember = "cluster/member/" // cluster/member/ID

	recordVersion = 1
)

// ErrForgotten: an operator has declared this node lost. What it held may be somebody else's by now.
var ErrForgotten = errors.New("this node was declared lost")

// What the record of a member says, "VERSION STATE NAME"; that of an identity is "VERSION ID".
const (
	stateUp   = "up"
	stateLost = "lost" // an operator said so
)

// Member is this node as one of those that share a ledger. Its methods may be called concurrently.
type Member struct {
	own, shared store.Store
	name        string

	mu   sync.Mutex // guards the fields below
	id   string
	cond store.Cond // no key while it is not known
}

// New makes a Member. own is the node's own ledger, shared what it shares with the others; neither is touched before it is
// needed. name is what people call the node.
func New(own, shared store.Store, name string) *Member {
	return &Member{own: own, shared: shared, name: name}
}

// ID is the node's name among nodes. It needs the node's own ledger alone.
func (m *Member) ID(ctx context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.identify(ctx)
	return m.id, err
}

// Cond is the condition that this node is a member, under which it makes each of its writes to the shared ledger. The error
// matches [ErrForgotten] when it is not any more.
func (m *Member) Cond(ctx context.Context) (store.Cond, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cond.Key != "" {
		return m.cond, nil
	}
	if err := m.identify(ctx); err != nil {
		return store.Cond{}, err
	}
	err := m.join(ctx)
	return m.cond, err
}

// Anew is Cond when the condition failed has failed.
func (m *Member) Anew(ctx context.Context, failed store.Cond) (store.Cond, error) {
	m.mu.Lock()
	if m.cond == failed {
		m.cond = store.Cond{}
	}
	m.mu.Unlock()
	return m.Cond(ctx)
}

// identify reads or makes the identity.
func (m *Member) identify(ctx context.Context) error {
	if m.id != "" {
		return nil
	}
	kv, err := m.own.Get(ctx, keyIdentity)
	if errors.Is(err, store.ErrNotFound) {
		return m.be(ctx, strings.ToLower(rand.Text()))
	}
	if err != nil {
		return fmt.Errorf("node's identity: %w", err)
	}
	m.id, err = versioned(kv)
	return err
}

// be writes the identity down and takes it on.
func (m *Member) be(ctx context.Context, id string) error {
	value := fmt.Appendf(nil, "%d %s", recordVersion, id)
	if _, err := m.own.Txn(ctx, nil, []store.Op{store.Put(keyIdentity, value)}); err != nil {
		return fmt.Errorf("node's identity: %w", err)
	}
	m.id = id
	return nil
}

// join finds or makes the node's record as a member. There may be none although there was one: the ledger is another one now.
func (m *Member) join(ctx context.Context) error {
	key := prefixMember + m.id
	kv, err := m.shared.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		kv, err = m.enlist(ctx, key)
	}
	if err != nil {
		return err
	}
	says, err := versioned(kv)
	if err != nil {
		return err
	}
	if state, _, _ := strings.Cut(says, " "); state == stateLost {
		return ErrForgotten
	}
	m.cond = store.Unchanged(kv)
	return nil
}

// enlist makes the record. Whether that went well is seen by reading it: nobody else makes one with this key.
func (m *Member) enlist(ctx context.Context, key string) (store.KV, error) {
	ctx = store.WithToken(ctx, "") // what the context names is another transaction
	_, err := m.shared.Txn(ctx, []store.Cond{store.Absent(key)}, []store.Op{store.Put(key, member(stateUp, m.name))})
	if err != nil && !errors.Is(err, store.ErrAmbiguous) {
		return store.KV{}, err
	}
	kv, err := m.shared.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) { // not a word that callers may take for one about their own records
		err = fmt.Errorf("%w: the node's record is not there yet; try again", store.ErrUnavailable)
	}
	return kv, err
}

// member is the record of a member.
func member(state, name string) []byte {
	return fmt.Appendf(nil, "%d %s %s", recordVersion, state, name)
}

// Renew gives a node that was forgotten a new identity. What it held under the old one must be dropped before.
func (m *Member) Renew(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cond = store.Cond{}
	return m.be(ctx, strings.ToLower(rand.Text()))
}

// versioned is what a record says after its version.
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
