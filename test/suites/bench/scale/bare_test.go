package scale

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// bare measures the etcd transaction that an allocation is, without the allocator: as many conditions of the same kinds, and as many
// writes of the same size. With a token it also has what the store adds to each, so that it is applied at most once: a key with an etcd lease,
// the condition that it is absent, and what to read if a condition fails.
type bare struct {
	client *clientv3.Client
	shape  transaction
	number int
	lease  clientv3.LeaseID // of the tokens
}

// newBare makes what the conditions of the shape are about.
func (r *run) newBare(shape transaction) *bare {
	r.T.Helper()
	lease, err := r.client.Grant(r.T.Context(), 600)
	if err != nil {
		r.T.Fatal(err)
	}
	b := &bare{client: r.client, shape: shape, lease: lease.ID}
	for i := range shape.conds {
		if _, err := r.client.Put(r.T.Context(), b.key(i, "exists"), "x"); err != nil {
			r.T.Fatal(err)
		}
	}
	return b
}

// key is the key of a condition.
func (b *bare) key(cond int, name string) string { return fmt.Sprintf("/bare/%s/%d/", name, cond) }

// do makes a transaction, and returns how long it took.
func (b *bare) do(r *run, withToken bool) time.Duration {
	r.T.Helper()
	b.number++
	var conds []clientv3.Cmp
	for i, c := range b.shape.conds {
		switch {
		case c.NotNewer:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(b.key(i, "exists")).WithPrefix(), "<", 1<<60))
		case c.Rev == 0:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(b.key(i, "absent")), "=", 0))
		default:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(b.key(i, "exists")), ">", 0))
		}
	}
	var ops []clientv3.Op
	for i, op := range b.shape.then {
		key := fmt.Sprintf("/bare/written/%d/%d/", b.number, i)
		key += strings.Repeat("k", max(len(op.Key)-len(key), 0))
		ops = append(ops, clientv3.OpPut(key, string(slices.Repeat([]byte("v"), len(op.Value)))))
	}
	var otherwise []clientv3.Op
	if withToken {
		token := fmt.Sprintf("/bare/token/%d/%s", b.number, rand.Text())
		otherwise = append(otherwise, clientv3.OpGet(token))
		for i := range b.shape.conds {
			otherwise = append(otherwise, clientv3.OpGet(b.key(i, "exists"), clientv3.WithKeysOnly()))
		}
		conds = append(conds, clientv3.Compare(clientv3.ModRevision(token), "=", 0))
		ops = append(ops, clientv3.OpPut(token, "1", clientv3.WithLease(b.lease)))
	}
	began := time.Now()
	resp, err := b.client.Txn(r.T.Context()).If(conds...).Then(ops...).Else(otherwise...).Commit()
	took := time.Since(began)
	if err != nil || !resp.Succeeded {
		r.T.Fatalf("bare transaction: %v", err)
	}
	return took
}
