package ipamdrv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// TestForeignRecords: a record of a newer version is refused, a damaged one is named in the error, and fields that older versions did not
// write are optional.
func TestForeignRecords(t *testing.T) {
	const id = "00112233445566778899aabbccddeeff"
	const handle = "v1:" + id
	tests := []struct {
		name, pool, lease string
		kind              error
		want              string // of a request for 10.9.0.2, "" when it is given
	}{
		{"least", `{"subnet":"10.9.0.0/24"}`, "", nil, ""},
		{"more than we know", `{"v":1,"subnet":"10.9.0.0/24","colour":"red"}`, "", nil, ""},
		{"lenient number", `{"subnet":"10.9.0.0/24","options":{"prefetch":"010","quarantine":"+30s"}}`, "", nil, ""},
		{"empty lease", `{"subnet":"10.9.0.0/24"}`, `{}`, ipamdrv.ErrInUse,
			"pool 10.9.0.0/24: request address 10.9.0.2: in use by a container"},
		{"damaged lease", `{"subnet":"10.9.0.0/24"}`, `{`, ipamdrv.ErrInUse, "pool 10.9.0.0/24: request address 10.9.0.2: " +
			"in use (record ipam/lease/" + id + "/10.9.0.2: ledger is damaged: unexpected end of JSON input)"},
		{"newer pool", `{"v":2,"subnet":"10.9.0.0/24"}`, "", store.ErrNewer, `pool "` + handle +
			`": request address: record ipam/pool/` + id + `: ledger was written by a newer version: ` +
			`it has version 2, this plugin knows 1; upgrade the plugin on this node`},
		{"no subnet", `{"v":1}`, "", store.ErrCorrupt, `pool "` + handle + `": request address: record ipam/pool/` + id +
			`: ledger is damaged: subnet "invalid Prefix": must be an address and a prefix length, such as 10.1.0.0/24 or ` +
			`fd00:1::/64`},
		{"range outside", `{"subnet":"10.9.0.0/24","range":"10.8.0.0/24"}`, "", store.ErrCorrupt, `pool "` + handle +
			`": request address: record ipam/pool/` + id + `: ledger is damaged: ip-range 10.8.0.0/24: must be inside subnet ` +
			`10.9.0.0/24`},
		{"lease outside", `{"subnet":"10.8.0.0/24"}`, `{}`, store.ErrCorrupt, `pool "` + handle +
			`": request address: record ipam/lease/` + id + `/10.9.0.2: ledger is damaged: not in subnet 10.8.0.0/24`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			withFixture(t, func(b *fixture) {
				ops := []store.Op{store.Put("ipam/pool/"+id, []byte(test.pool))}
				if test.lease != "" {
					ops = append(ops, store.Put("ipam/lease/"+id+"/10.9.0.2", []byte(test.lease)))
				}
				if _, err := b.store.Txn(b.Context(), nil, ops); err != nil {
					t.Fatal(err)
				}
				if test.want == "" {
					b.gives(handle, "10.9.0.2", nil, "10.9.0.2/24")
				} else {
					b.refuses(handle, "10.9.0.2", nil, test.kind, test.want)
				}
				b.releasePool(handle) // releasing works in any case
				if left := keys(t, b.store, ""); len(left) > 0 {
					t.Errorf("the ledger still has %q", left)
				}
			})
		})
	}
}

// TestRewritesKeepUnknown: what a newer version has written into the records of pools, shares and gateways is there after every kind of
// rewrite by this one.
func TestRewritesKeepUnknown(t *testing.T) {
	withFixture(t, func(b *fixture) {
		own := b.pool("10.9.0.0/24", "")
		lan, other := b.poolWith("10.8.0.0/24", "pool=lan"), b.poolWith("10.8.0.0/24", "pool=lan")
		b.gives(lan, "10.8.0.1", asGateway, "10.8.0.1/24")
		marked := b.mark("ipam/pool/", "ipam/share/", "ipam/lease/")
		b.d.BindPool(b.Context(), "own-network", "passthrough-local", "10.9.0.0/24", "", nil, false)
		b.d.BindPool(b.Context(), "other-network", "passthrough-local", "10.8.0.0/24", "", nil, false)
		b.d = newDriver(b.T, b.store)
		b.gives(own, "", nil, "10.9.0.2/24") // the cursor
		b.gives(own, "10.9.0.1", asGateway, "10.9.0.1/24")
		b.gives(other, "10.8.0.1", asGateway, "10.8.0.1/24") // a second holder
		b.releasePool(lan)
		lost := 0
		for _, key := range marked {
			kv, err := b.store.Get(b.Context(), key)
			if errors.Is(err, store.ErrNotFound) { // the share that has left
				lost++
				continue
			}
			if err != nil || !strings.HasSuffix(string(kv.Value), newer) {
				b.Errorf("%s is %s, %v", key, kv.Value, err)
			}
		}
		if lost != 1 || len(marked) != 5 {
			b.Errorf("%d of the records %v have ended, want that of one share", lost, marked)
		}
	})
}

// newer is how a record ends into which a newer version has written something.
const newer = `,"fence":{"by":"newer"}}`

// mark makes the records under these prefixes be of a newer version, and returns their keys.
func (b *fixture) mark(prefixes ...string) (marked []string) {
	b.Helper()
	for _, prefix := range prefixes {
		for _, key := range keys(b.T, b.store, prefix) {
			kv, err := b.store.Get(b.Context(), prefix+key)
			if err != nil {
				b.Fatal(err)
			}
			value := strings.TrimSuffix(string(kv.Value), "}") + newer
			if _, err := b.store.Txn(b.Context(), nil, []store.Op{store.Put(kv.Key, []byte(value))}); err != nil {
				b.Fatal(err)
			}
			marked = append(marked, kv.Key)
		}
	}
	return marked
}

// TestUnusableRecord: a pool that an older version created, with addresses that are refused now, works.
func TestUnusableRecord(t *testing.T) {
	withFixture(t, func(b *fixture) {
		const id = "00112233445566778899aabbccddeeff"
		op := store.Put("ipam/pool/"+id, []byte(`{"subnet":"240.1.0.0/24","options":{"gateway":"127.0.0.1","exclude":"224.0.0.1"}}`))
		if _, err := b.store.Txn(b.Context(), nil, []store.Op{op}); err != nil {
			t.Fatal(err)
		}
		b.gives("v1:"+id, "", nil, "240.1.0.1/24")
		b.gives("v1:"+id, "240.1.0.9", nil, "240.1.0.9/24")
	})
}

// TestLedgerUnavailable: while the ledger is unavailable every call says why. When it is available again, calls work without a restart.
func TestLedgerUnavailable(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("10.99.0.0/24", "")
		b.gives(n, "10.99.0.5", nil, "10.99.0.5/24")
		s := &switchable{Store: store.Unavailable(errors.New("ledger /data/ledger.db: open: no such disk"))}
		good := b.store
		b.d = newDriver(t, s)
		for range 2 {
			_, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: "10.1.0.0/24"})
			wantError(t, err, store.ErrUnavailable, "pool 10.1.0.0/24: request: ledger /data/ledger.db: open: no such disk")
			_, err = b.d.ReleasePool(b.Context(), &ipam.ReleasePoolRequest{PoolID: n})
			wantError(t, err, store.ErrUnavailable, `pool "`+n+`": release: ledger /data/ledger.db: open: no such disk`)
			b.refuses(n, "", nil, store.ErrUnavailable,
				`pool "`+n+`": request address: ledger /data/ledger.db: open: no such disk`)
			_, err = b.d.ReleaseAddress(b.Context(), &ipam.ReleaseAddressRequest{PoolID: n, Address: "10.99.0.5"})
			wantError(t, err, store.ErrUnavailable,
				`pool "`+n+`": release address 10.99.0.5: ledger /data/ledger.db: open: no such disk`)
			b.invented("10.99.0.0/24", "10.99.0.1", false)
		}
		if _, err := b.d.GetCapabilities(b.Context(), nil); err != nil {
			t.Errorf("GetCapabilities: %v", err)
		}
		s.Store = good
		b.refuses(n, "10.99.0.5", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/24: request address 10.99.0.5: in use since "+
			"2000-01-01 00:00:00 UTC by an --aux-address or a container with this --ip")
		b.gives(n, "", nil, "10.99.0.2/24")
	})
}

// switchable is a store that can be replaced between calls.
type switchable struct{ store.Store }

// TestCallerGone: an address is released if the caller has gone before the answer.
func TestCallerGone(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("10.99.0.0/24", "")
		before := keys(t, b.store, "")
		ctx, cancel := context.WithCancel(b.Context())
		b.d = newDriver(t, &hook{Store: b.store, after: cancel})
		for _, options := range []map[string]string{nil, asGateway} {
			for _, addr := range []string{"", "10.99.0.9"} {
				req := &ipam.RequestAddressRequest{PoolID: n, Address: addr, Options: options}
				_, err := b.d.RequestAddress(ctx, req)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("RequestAddress: %v, want it canceled", err)
				}
				if after := keys(t, b.store, ""); !slices.Equal(before, after) {
					t.Errorf("the ledger went from %q to %q", before, after)
				}
				checkInvariants(t, b.d, b.store)
				ctx, cancel = context.WithCancel(b.Context())
				b.d = newDriver(t, &hook{Store: b.store, after: cancel})
			}
		}
		_, err := b.d.RequestPool(ctx, &ipam.RequestPoolRequest{Pool: "10.1.0.0/24"})
		wantError(t, err, context.Canceled, "pool 10.1.0.0/24: request: context canceled")
		if after := keys(t, b.store, ""); !slices.Equal(before, after) {
			t.Errorf("the ledger went from %q to %q", before, after)
		}
		b.d = newDriver(t, b.store)
	})
}

// hook calls a function after each transaction.
type hook struct {
	store.Store
	after func()
}

func (h *hook) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	r, err := h.Store.Txn(ctx, conds, then)
	h.after()
	return r, err
}
