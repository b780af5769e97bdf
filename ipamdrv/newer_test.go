package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// replace replaces a text in the one record under a prefix, as a newer version would have written it.
func (b *fixture) replace(prefix, what, with string) {
	b.Helper()
	all := keys(b.T, b.store, prefix)
	if len(all) != 1 {
		b.Fatalf("records under %s: %q, want one", prefix, all)
	}
	kv, err := b.store.Get(b.Context(), prefix+all[0])
	if err != nil || !strings.Contains(string(kv.Value), what) {
		b.Fatalf("record %s is %s, %v, without %s", kv.Key, kv.Value, err, what)
	}
	value := strings.Replace(string(kv.Value), what, with, 1)
	if _, err := b.store.Txn(b.Context(), nil, []store.Op{store.Put(kv.Key, []byte(value))}); err != nil {
		b.Fatal(err)
	}
	b.d = newDriver(b.T, b.store)
}

// wantKind checks the kind of an error, and a part of its text.
func wantKind(t *testing.T, err, kind error, want string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), want) {
		t.Errorf("error\n got: %v\nwant: %s, as %v", err, want, kind)
	}
}

// TestNewerOptions: a pool with an option that only a newer version can obey gives nothing. What it has given is released, rests for the nodes
// that know how long, and is removed with it.
func TestNewerOptions(t *testing.T) {
	for name, c := range map[string]struct{ options, says string }{
		"option": {`"options":{"embargo":"yes","reuse":"last"}`, "embargo=yes"},
		"value":  {`"options":{"reuse":"random"}`, "reuse=random"},
		"both":   {`"options":{"embargo":"yes","quarantine":"auto"}`, "embargo=yes and quarantine=auto"},
	} {
		t.Run(name, func(t *testing.T) {
			withFixture(t, func(b *fixture) {
				n := b.poolWith("10.9.0.0/24", "reuse=last")
				b.gives(n, "", nil, "10.9.0.2/24")
				b.gives(n, "10.9.0.7", named, "10.9.0.7/24")
				b.replace("ipam/pool/", `"options":{"reuse":"last"}`, c.options)
				for addr, options := range map[string]map[string]string{"": nil, "10.9.0.9": named, "10.9.0.1": asGateway} {
					_, err := b.request(n, addr, options)
					wantKind(b.T, err, store.ErrNewer, "pool 10.9.0.0/24 has option "+c.says+
						" of a newer version of the plugin, which this one does not know; upgrade the plugin on this node")
				}
				b.release(n, "10.9.0.2")
				rests, err := b.store.Get(b.Context(), "ipam/lease/"+strings.TrimPrefix(n, "v1:")+"/10.9.0.2")
				if err != nil || !strings.Contains(string(rests.Value), `"kind":"resting"`) {
					b.Errorf("the released address is %s, %v, want it resting", rests.Value, err)
				}
				b.releasePool(n)
				b.empty()
			})
		})
	}
}

// TestJoinNewerOptions: an older node does not join a shared pool that it could not obey, and leaves one that it has joined.
func TestJoinNewerOptions(t *testing.T) {
	withFixture(t, func(b *fixture) {
		lan := b.poolWith("10.9.0.0/24", "pool=lan")
		b.gives(lan, "", nil, "10.9.0.2/24")
		b.replace("ipam/pool/", `"options":{"pool":"lan"}`, `"options":{"embargo":"yes","pool":"lan"}`)
		_, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: "10.9.0.0/24", Options: map[string]string{"pool": "lan"}})
		wantKind(b.T, err, store.ErrNewer, `pool "lan" has option embargo=yes of a newer version`)
		b.release(lan, "10.9.0.2")
		b.releasePool(lan)
		b.empty()
	})
}

// TestNewerGroup: the error for a full pool names the pool of its group that this version cannot obey.
func TestNewerGroup(t *testing.T) {
	withFixture(t, func(b *fixture) {
		big := b.poolWith("10.9.0.0/24", "overflow=two")
		b.replace("ipam/pool/", `"options":{"overflow":"two"}`, `"options":{"embargo":"yes","overflow":"two"}`)
		small := b.poolWith("10.8.0.0/30", "overflow=two")
		b.gives(small, "", nil, "10.8.0.1/30")
		b.gives(small, "10.8.0.2", nil, "10.8.0.2/30")
		_, err := b.request(small, "", nil)
		wantKind(b.T, err, store.ErrNewer, "pool 10.9.0.0/24 has option embargo=yes")
		b.releasePool(big)
		_, err = b.request(small, "", nil)
		wantKind(b.T, err, ipamdrv.ErrFull, "pool 10.8.0.0/30")
	})
}

// refusing is a shared store that refuses this version.
type refusing struct {
	store.Store
	store.Watcher
	on atomic.Bool
}

func (r *refusing) Get(ctx context.Context, key string) (store.KV, error) {
	if r.on.Load() {
		return store.KV{}, fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrNewer)
	}
	return r.Store.Get(ctx, key)
}

func (r *refusing) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if r.on.Load() {
		return store.Result{}, fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrNewer)
	}
	return r.Store.Txn(ctx, conds, then)
}

// TestNodeBelowMinimum: a node that the store refuses because a newer version is needed gives nothing, not even what it has prefetched. What it
// releases meanwhile is released once it is upgraded.
func TestNodeBelowMinimum(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		far := &refusing{Store: under, Watcher: under}
		n := newNode(t, far)
		pool := n.pool("10.1.0.0/24", "prefetch=2")
		addr := n.get(pool)
		wait(time.Minute)
		far.on.Store(true)
		for range 2 {
			_, err := n.ask(pool)
			wantKind(t, err, store.ErrNewer, "newer version")
			wait(time.Second)
		}
		n.release(pool, addr)
		far.on.Store(false)
		wait(2 * time.Minute)
		for _, lease := range held(t, under) {
			if strings.HasSuffix(lease, addr) {
				t.Errorf("%s is still held after the upgrade", lease)
			}
		}
		n.get(pool)
	})
}

// TestReleaseFromNewerPool: a node that cannot read the record of a pool any more keeps the release, and does it once it is upgraded. Its other
// pools do not wait for that.
func TestReleaseFromNewerPool(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		n := newNode(t, far)
		first, second := n.pool("10.1.0.0/24"), n.pool("10.2.0.0/24")
		a, b := n.get(first), n.get(second)
		key := "ipam/pool/" + strings.TrimPrefix(first, "v1:")
		readable := value(t, under, key)
		write := func(value string) {
			if _, err := under.Txn(t.Context(), nil, []store.Op{store.Put(key, []byte(value))}); err != nil {
				t.Fatal(err)
			}
		}
		write(strings.Replace(readable, `"v":1`, `"v":2`, 1))
		n.restart()
		n.release(first, a)
		far.Away(true)
		n.release(second, b)
		far.Away(false)
		wait(2 * time.Minute)
		wantHeld(t, under, "while one pool cannot be read", a)
		_, err := n.ask(first)
		wantKind(t, err, store.ErrNewer, "upgrade the plugin on this node")
		write(readable)
		wait(2 * time.Minute)
		wantHeld(t, under, "after the upgrade")
	})
}

// gated is a shared store with a schema.
type gated struct {
	*store.Memory
	schema int
}

func (g *gated) Schema(context.Context) (int, error) { return g.schema, nil }
func (g *gated) RaiseSchema(context.Context) error   { return nil }

// TestOlderRemoval: while there may be nodes of the release before, which remove a pool on the condition that its record is unchanged, none of
// their removals loses a network that joins meanwhile, and none leaves a pool without networks because another one leaves. Once an operator
// has said that there are none, joins do not write the record.
func TestOlderRemoval(t *testing.T) {
	for _, schema := range []int{store.SchemaOldest, store.SchemaNewest} {
		synctest.Test(t, func(t *testing.T) {
			far := &gated{store.NewMemory(), schema}
			n := newNode(t, far)
			lan := n.pool("10.1.0.0/24", "pool=lan")
			id, _, _ := strings.Cut(strings.TrimPrefix(lan, "v1:"), ".")
			key := "ipam/pool/" + id
			change := func(what string, f func()) {
				before, err := far.Get(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				f()
				r, err := far.Txn(t.Context(), []store.Cond{store.Unchanged(before)}, nil)
				if refused := err == nil && !r.OK; refused != (schema < store.SchemaShares) {
					t.Errorf("schema %d: an older node's removal that was planned before %s is refused: %t", schema, what, refused)
				}
			}
			var second string
			change("a join", func() { second = n.pool("10.1.0.0/24", "pool=lan") })
			change("a leave", func() { n.releasePool(second) })
			third := n.pool("10.1.0.0/24", "pool=lan")
			if _, err := n.d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: third, Address: "10.1.0.1", Options: asGateway}); err != nil {
				t.Fatal(err)
			}
			n.releasePool(third)
			n.releasePool(lan)
			if left := keys(t, far, "ipam/"); len(left) > 0 {
				t.Errorf("schema %d: left are %q", schema, left)
			}
		})
	}
}
