package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// errand is what is to be done in the shared store as soon as that can be reached. In the node's own ledger it is
//
//	cluster/errand/KEY/RANDOM = ""                       release this node's hold of KEY
//	cluster/errand/KEY/RANDOM = TOKEN LENGTH \n VALUE    release KEY if it has that value; it was claimed, perhaps, under
//	                                                     that token
//	cluster/errand/KEY/RANDOM = TOKEN LENGTH \n VALUE TO give KEY the value TO if it has that value
//
// There may be several for a key: what a claim has made, perhaps, while another holds it.
type errand struct {
	at    string // where it is in the ledger
	key   string
	token string
	value []byte // nil: whatever says that this node holds it
	to    []byte // nil: none, it is to be released
}

// encode is the errand's value in the ledger.
func (e errand) encode() []byte {
	if e.value == nil {
		return nil
	}
	return slices.Concat(fmt.Appendf(nil, "%s %d\n", e.token, len(e.value)), e.value, e.to)
}

// decodeErrand is the reverse of encode.
func decodeErrand(kv store.KV) (errand, error) {
	e := errand{at: kv.Key}
	path := strings.TrimPrefix(kv.Key, prefixErrand)
	e.key = path[:max(strings.LastIndexByte(path, '/'), 0)]
	if len(kv.Value) == 0 {
		return e, nil
	}
	head, values, _ := strings.Cut(string(kv.Value), "\n")
	token, length, _ := strings.Cut(head, " ")
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > len(values) {
		return errand{}, fmt.Errorf("record %s: %w", kv.Key, store.ErrCorrupt)
	}
	e.token, e.value = token, []byte(values[:n])
	if n < len(values) {
		e.to = []byte(values[n:])
	}
	return e, nil
}

// placed gives the errand a place in the ledger.
func (e errand) placed() errand {
	e.at = prefixErrand + e.key + "/" + rand.Text()
	return e
}

// enqueue writes an errand down. It works after ctx has ended: what is not written down is lost.
func (n *Node) enqueue(ctx context.Context, e errand) error {
	e = e.placed()
	if _, err := n.own.Txn(context.WithoutCancel(ctx), nil, []store.Op{store.Put(e.at, e.encode())}); err != nil {
		return fmt.Errorf("%s: queue its release: %w", e.key, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue[e.at] = e
	return nil
}

// loadQueue reads the queue from the ledger.
func (n *Node) loadQueue(ctx context.Context) error {
	return n.own.Range(ctx, prefixErrand, func(kv store.KV) error {
		e, err := decodeErrand(kv)
		n.queue[kv.Key] = e
		return err
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

// Queued are the keys of records that are to be released or changed, in order.
func (n *Node) Queued() []string {
	var keys []string
	for _, e := range n.errands("") {
		keys = append(keys, e.key)
	}
	return slices.Compact(keys)
}

// Deliver makes the releases and changes that are queued, as far as the shared store can be reached. It is to be called
// from time to time while [Node.Queued] is not empty.
func (n *Node) Deliver(ctx context.Context) error { return n.deliverFor(ctx, "") }

// deliverFor makes those of one key, or, with "", all of them.
func (n *Node) deliverFor(ctx context.Context, key string) error {
	for _, e := range n.errands(key) {
		if err := n.deliver(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// deliver makes one, and one at a time. Until it leaves the queue this node does not claim the key, so whatever
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
		return fmt.Errorf("%s: deliver: %w", e.key, err)
	}
	run := n.release
	if e.to != nil {
		run = n.rewrite
	}
	if err := run(ctx, e); err != nil && !errors.Is(err, ErrNotHeld) {
		return fmt.Errorf("%s: deliver: %w", e.key, err)
	}
	if _, err := n.own.Txn(ctx, nil, []store.Op{store.Del(e.at)}); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.queue, e.at)
	return nil
}
