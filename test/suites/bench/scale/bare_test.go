package scale

import (
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// bare measures the etcd transaction that an allocation is, without the allocator: as many conditions of the same kinds, and as many
// writes of the same size.
type bare struct {
	client *clientv3.Client
	shape  transaction
	number int
}

// newBare makes what the conditions of the shape are about.
func (r *run) newBare(shape transaction) *bare {
	r.t.Helper()
	b := &bare{client: r.client, shape: shape}
	for i := range shape.conds {
		if _, err := r.client.Put(r.t.Context(), b.key(i, "exists"), "x"); err != nil {
			r.t.Fatal(err)
		}
	}
	return b
}

// key is the key of a condition.
func (b *bare) key(cond int, name string) string { return fmt.Sprintf("/bare/%s/%d/", name, cond) }

// do makes a transaction, and returns how long it took.
func (b *bare) do(r *run) time.Duration {
	r.t.Helper()
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
	began := time.Now()
	resp, err := b.client.Txn(r.t.Context()).If(conds...).Then(ops...).Commit()
	took := time.Since(began)
	if err != nil || !resp.Succeeded {
		r.t.Fatalf("bare transaction: %v", err)
	}
	return took
}
