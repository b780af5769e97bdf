package ipamdrv_test

import (
	"net/netip"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// FuzzSharedRecords: whatever the records say that tell who shares a pool, by which name, and what was carved for it, the
// driver works, and no network gets an address that another one has in that pool.
func FuzzSharedRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		s := store.NewMemory()
		defaults, err := ipamdrv.ParseDefaultPools("10.0.0.0/24:28")
		if err != nil {
			t.Fatal(err)
		}
		open := func() *ipamdrv.Driver {
			d, err := ipamdrv.New(ipamdrv.Config{Store: s, Defaults: defaults})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		lan := &ipam.RequestPoolRequest{Options: map[string]string{"pool": "lan"}}
		d := open()
		first, err := d.RequestPool(t.Context(), lan)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: first.PoolID, Address: "10.0.0.5"}); err != nil {
			t.Fatal(err)
		}
		prefixes := []string{"ipam/share/", "ipam/name/", "ipam/carved/"}
		prefix := prefixes[int(kind)%len(prefixes)]
		for _, key := range keys(t, s, prefix) {
			if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put(prefix+key, value)}); err != nil {
				t.Fatal(err)
			}
		}
		d = open()
		if second, err := d.RequestPool(t.Context(), lan); err == nil {
			got, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: second.PoolID, Address: "10.0.0.5"})
			if err == nil && second.PoolID[:len("v1:")+32] == first.PoolID[:len("v1:")+32] {
				t.Errorf("with %q in %s the address was given twice: %+v", value, prefix, got)
			}
		}
		if got, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: first.PoolID, Address: "10.0.0.5"}); err == nil {
			t.Errorf("with %q in %s its own address was given to it again: %+v", value, prefix, got)
		}
		for range 3 {
			if _, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{}); err != nil {
				break // of what cannot be read nothing is carved
			}
		}
		for _, id := range keys(t, s, "ipam/pool/") {
			if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: "v1:" + id}); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzDefaultPools: any text is refused, or gives subnets of the length that it says, in the prefixes that it says, of which
// no two overlap.
func FuzzDefaultPools(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, v6 bool) {
		defaults, err := ipamdrv.ParseDefaultPools(text)
		if err != nil {
			return
		}
		d, err := ipamdrv.New(ipamdrv.Config{Store: store.NewMemory(), Defaults: defaults})
		if err != nil {
			t.Fatal(err)
		}
		var all []netip.Prefix
		for range 4 {
			r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{V6: v6})
			if err != nil {
				break
			}
			got, err := netip.ParsePrefix(r.Pool)
			if err != nil || got != got.Masked() || got.Addr().Is6() != v6 {
				t.Fatalf("%q: %q, %v", text, r.Pool, err)
			}
			inside := false
			for _, p := range defaults {
				inside = inside || p.Prefix.Contains(got.Addr()) && p.Bits == got.Bits() && p.Prefix.Bits() <= got.Bits()
			}
			if !inside {
				t.Errorf("%q gives %s", text, got)
			}
			for _, other := range all {
				if other.Overlaps(got) {
					t.Errorf("%q gives %s and %s", text, other, got)
				}
			}
			all = append(all, got)
		}
	})
}
