package ipamdrv_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// FuzzRequestPool: any two strings give a pool whose addresses are inside the subnet and the range, or are refused and change nothing.
func FuzzRequestPool(f *testing.F) {
	f.Fuzz(func(t *testing.T, subnet, within string, v6 bool) {
		s := store.NewMemory()
		d := newDriver(t, s)
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: subnet, SubPool: within, V6: v6})
		if err != nil {
			if !errors.Is(err, ipamdrv.ErrInvalid) || len(keys(t, s, "")) > 0 {
				t.Errorf("refused with %v, ledger %q", err, keys(t, s, ""))
			}
			return
		}
		prefix, err := netip.ParsePrefix(r.Pool)
		if err != nil || prefix != prefix.Masked() {
			t.Fatalf("RequestPool(%q, %q) answered pool %q: %v", subnet, within, r.Pool, err)
		}
		for range 3 {
			a, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: r.PoolID})
			if errors.Is(err, ipamdrv.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := netip.ParsePrefix(a.Address)
			if err != nil || !prefix.Contains(got.Addr()) || got.Bits() != prefix.Bits() {
				t.Errorf("pool %q gives %q (%v)", r.Pool, a.Address, err)
			}
			if limit, err := netip.ParsePrefix(within); err == nil && !limit.Addr().Is4In6() && !limit.Contains(got.Addr()) {
				t.Errorf("ip-range %q gives %q", within, a.Address)
			}
		}
		checkInvariants(t, d, s)
		if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: r.PoolID}); err != nil {
			t.Error(err)
		}
		if left := keys(t, s, ""); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
	})
}

// FuzzRequestAddress: any string gives exactly that address, once, or is refused.
func FuzzRequestAddress(f *testing.F) {
	f.Fuzz(func(t *testing.T, pool uint8, addr, kind, name string) {
		s := store.NewMemory()
		d := newDriver(t, s)
		pools := []string{"10.0.0.0/24", "10.0.0.0/31", "fd00::/64", "fd00::/48", "10.0.0.0/8", "fd00::/127"}
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: pools[int(pool)%len(pools)]})
		if err != nil {
			t.Fatal(err)
		}
		req := &ipam.RequestAddressRequest{PoolID: r.PoolID, Address: addr, Options: map[string]string{
			"RequestAddressType": kind, "com.docker.network.endpoint.name": name}}
		first, err := d.RequestAddress(t.Context(), req)
		if err != nil {
			if !errors.Is(err, ipamdrv.ErrInvalid) {
				t.Errorf("RequestAddress(%q): %v", addr, err)
			}
			return
		}
		got, err := netip.ParsePrefix(first.Address)
		if err != nil || !netip.MustParsePrefix(r.Pool).Contains(got.Addr()) {
			t.Fatalf("RequestAddress(%q) in %s answered %q (%v)", addr, r.Pool, first.Address, err)
		}
		if asked, err := netip.ParseAddr(addr); addr != "" && (err != nil || asked.Unmap() != got.Addr()) {
			t.Errorf("RequestAddress(%q) answered %q", addr, first.Address)
		}
		again, err := d.RequestAddress(t.Context(), req)
		switch {
		case kind == "com.docker.network.gateway" && (err != nil || again.Address != first.Address):
			t.Errorf("the gateway again: %+v, %v", again, err)
		case kind != "com.docker.network.gateway" && err == nil && again.Address == first.Address:
			t.Errorf("RequestAddress(%q) gave %q twice", addr, first.Address)
		}
		checkInvariants(t, d, s)
		release := &ipam.ReleaseAddressRequest{PoolID: r.PoolID, Address: got.Addr().String()}
		if _, err := d.ReleaseAddress(t.Context(), release); err != nil {
			t.Error(err)
		}
		checkInvariants(t, d, s)
	})
}

// FuzzLeaseRecord: whatever the record of a lease contains, its address is not given to another container, and the pool works.
func FuzzLeaseRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, lease, pool []byte) {
		const id = "00112233445566778899aabbccddeeff"
		s := store.NewMemory()
		d := newDriver(t, s)
		ops := []store.Op{store.Put("ipam/lease/"+id+"/10.9.0.2", lease), store.Put("ipam/pool/"+id, pool)}
		if _, err := s.Txn(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
		ask := func(addr string) (string, error) {
			r, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: "v1:" + id, Address: addr})
			if err != nil {
				return "", err
			}
			return r.Address, nil
		}
		if got, err := ask("10.9.0.2"); err == nil {
			t.Errorf("the address was given as %q", got)
		} else if errors.Is(err, ipamdrv.ErrInUse) {
			for range 3 {
				if got, err := ask(""); err == nil && strings.HasPrefix(got, "10.9.0.2/") {
					t.Errorf("the address was chosen: %q", got)
				}
			}
			checkInvariants(t, d, s)
		}
		d.InventedGateway(t.Context(), "10.9.0.0/24", "10.9.0.1")
		if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: "v1:" + id}); err != nil {
			t.Error(err)
		}
		if left := keys(t, s, ""); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
	})
}

// FuzzPoolOptions: any option gives a pool that works, also after a restart, or is refused and changes nothing.
func FuzzPoolOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, name, value, name2, value2 string) {
		s := store.NewMemory()
		r, err := newDriver(t, s).RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/28",
			Options: map[string]string{name: value, name2: value2}})
		if err != nil {
			if !errors.Is(err, ipamdrv.ErrInvalid) || len(keys(t, s, "")) > 0 {
				t.Errorf("refused with %v, ledger %q", err, keys(t, s, ""))
			}
			return
		}
		d := newDriver(t, s)
		for _, addr := range []string{"", "10.0.0.5", ""} {
			_, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: r.PoolID, Address: addr})
			if err != nil && !errors.Is(err, ipamdrv.ErrFull) && !errors.Is(err, ipamdrv.ErrInUse) {
				t.Errorf("RequestAddress(%q): %v", addr, err)
			}
		}
		checkInvariants(t, d, s)
		if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: r.PoolID}); err != nil {
			t.Error(err)
		}
		if left := keys(t, s, ""); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
	})
}

// FuzzRelease: only the right handle and address release something.
func FuzzRelease(f *testing.F) {
	f.Fuzz(func(t *testing.T, handle, addr string) {
		s := store.NewMemory()
		d := newDriver(t, s)
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/28",
			Options: map[string]string{"pool": "lan"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: r.PoolID}); err != nil {
			t.Fatal(err)
		}
		before := len(keys(t, s, ""))
		for _, handle := range []string{handle, r.PoolID + handle, strings.Split(r.PoolID, ".")[0] + handle} {
			if handle == r.PoolID {
				continue
			}
			_, err := d.ReleaseAddress(t.Context(), &ipam.ReleaseAddressRequest{PoolID: handle, Address: addr})
			if err != nil && !errors.Is(err, ipamdrv.ErrInvalid) {
				t.Errorf("ReleaseAddress(%q, %q): %v", handle, addr, err)
			}
			_, err = d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: handle})
			if err != nil && !errors.Is(err, ipamdrv.ErrInvalid) {
				t.Errorf("ReleasePool(%q): %v", handle, err)
			}
		}
		if after := len(keys(t, s, "")); after != before {
			t.Errorf("releasing %q of %q left %d of %d records", addr, handle, after, before)
		}
	})
}
