package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// errand is a release that is to be delivered. In the node's own ledger it is
//
//	cluster/release/KEY/RANDOM = ""              this node's hold of KEY
//	cluster/release/KEY/RANDOM = TOKEN \n VALUE  the record of KEY with that value, if a claim in doubt made it
//
// There may be several for a key: what a claim has made, perhaps, while another holds it.
type errand struct {
	at    string // where it is in the ledger
	key   string
	token string
	value []byte
}

// encode is the errand's value in the ledger.
func (e errand) encode() []byte {
	if e.value == nil {
		return nil
	}
	return append([]byte(e.token+"\n"), e.value...)
}

// decodeErrand is the reverse of encode.
func decodeErrand(kv store.KV) errand {
	e := errand{at: kv.Key}
	path := strings.TrimPrefix(kv.Key, prefixQueue)
	e.key = path[:max(strings.LastIndexByte(path, '/'), 0)]
	if token, value, ok := bytes.Cut(kv.Value, []byte("\n")); ok {
		e.token, e.value = string(token), value
	}
	return e
}

// enqueue writes an errand down. It works after ctx has ended: what is not written down is lost.
func (n *Node) enqueue(ctx context.Context, e errand) error {
	e.at = prefixQueue + e.key + "/" + rand.Text()
	if _, err := n.own.Txn(context.WithoutCancel(ctx), nil, []store.Op{store.Put(e.at, e.encode())}); err != nil {
		return fmt.Errorf("%s: queue its release: %w", e.key, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue[e.at] = e
	return nil
}

// load reads the queue from the ledger.
func (n *Node) load(ctx context.Context) error {
	return n.own.Range(ctx, prefixQueue, func(kv store.KV) error {
		n.queue[kv.Key] = decodeErrand(kv)
		return nil
	})
}

// errands are those that are to be run, in order, for one key or, with "", for all.
func (n *Node) errands(key string) []errand {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []errand
	for _, e := range n.queue {
		if key == "" || e.key == key {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b errand) int { return strings.Compare(a.at, b.at) })
	return found
}

// Queued are the keys that are to be released, in order.
func (n *Node) Queued() []string {
	var keys []string
	for _, e := range n.errands("") {
		keys = append(keys, e.key)
	}
	return slices.Compact(keys)
}

// Deliver makes the releases that are queued, as far as the shared store can be reached. It is to be called from time to
// time while [Node.Queued] is not empty.
func (n *Node) Deliver(ctx context.Context) error { return n.deliverFor(ctx, "") }

// deliverFor makes the releases of one key, or, with "", all of them.
func (n *Node) deliverFor(ctx context.Context, key string) error {
	for _, e := range n.errands(key) {
		if err := n.deliver(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// deliver makes one release, and one at a time. Until it leaves the queue this node does not claim the key, so whatever
// it finds there is from before.
func (n *Node) deliver(ctx context.Context, e errand) error {
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := n.own.Get(ctx, e.at); errors.Is(err, store.ErrNotFound) {
		return nil // delivered while we waited
	} else if err != nil {
		return err
	}
	if err := store.Settle(ctx, n.shared, e.token); err != nil {
		return fmt.Errorf("%s: release: %w", e.key, err)
	}
	if err := n.release(ctx, e); err != nil && !errors.Is(err, ErrNotHeld) {
		return fmt.Errorf("%s: release: %w", e.key, err)
	}
	if _, err := n.own.Txn(ctx, nil, []store.Op{store.Del(e.at)}); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.queue, e.at)
	return nil
}
