package bench

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"github.com/docker/docker/libnetwork/ipamapi"
	"github.com/docker/docker/libnetwork/ipams/defaultipam"
	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// An allocator gives addresses of one pool and takes them back.
type addresses interface {
	take() (netip.Addr, error)
	give(a netip.Addr) error
}

// BenchmarkAddress takes one address and gives it back, from pools that are 1, 50 and 99 % full with holes at random. What
// the candidates do for it differs: ours on bbolt has it on disk when it answers, host-local writes a file that may still
// be lost, the others only remember it.
func BenchmarkAddress(b *testing.B) {
	for _, pool := range []string{"10.0.0.0/20", "10.0.0.0/16"} {
		for _, percent := range []int{1, 50, 99} {
			prefix := netip.MustParsePrefix(pool)
			size := 1<<(32-prefix.Bits()) - 3
			for _, c := range []struct {
				name string
				open func(b *testing.B, pool netip.Prefix, n, size int) addresses
			}{{"ours in RAM", openMemory}, {"ours on bbolt", openBolt}, {"libnetwork", openLibnetwork}, {"host-local", openHostLocal}} {
				b.Run(fmt.Sprintf("%s/%d%%/%s", pool, percent, c.name), func(b *testing.B) {
					from := c.open(b, prefix, size*percent/100, size)
					for b.Loop() {
						cycle(b, from)
					}
				})
			}
		}
	}
}

// BenchmarkLarge does it in pools that the others cannot fill, or not in this life: the cost must be that of a small one.
func BenchmarkLarge(b *testing.B) {
	for _, pool := range []string{"10.0.0.0/24", "10.0.0.0/8", "fd00::/64"} {
		n := 100
		if pool != "10.0.0.0/24" {
			n = 160_000
		}
		prefix := netip.MustParsePrefix(pool)
		b.Run(fmt.Sprintf("%s/%d taken/ours in RAM", pool, n), func(b *testing.B) {
			from := openMemory(b, prefix, n, n)
			for b.Loop() {
				cycle(b, from)
			}
		})
		b.Run(fmt.Sprintf("%s/%d taken/libnetwork", pool, n), func(b *testing.B) {
			from := openLibnetwork(b, prefix, n, n)
			for b.Loop() {
				cycle(b, from)
			}
		})
	}
}

// cycle takes an address and gives it back.
func cycle(b *testing.B, from addresses) {
	a, err := from.take()
	if err == nil {
		err = from.give(a)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// punch takes size addresses and gives all but n of them back, at random: the same holes for all.
func punch(b *testing.B, from addresses, n, size int) {
	b.Helper()
	var taken []netip.Addr
	for range size {
		a, err := from.take()
		if err != nil {
			b.Fatal(err)
		}
		taken = append(taken, a)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(len(taken), func(i, j int) { taken[i], taken[j] = taken[j], taken[i] })
	for _, a := range taken[n:] {
		if err := from.give(a); err != nil {
			b.Fatal(err)
		}
	}
}

// ours is the plugin's driver without its socket.
type ours struct {
	driver *ipamdrv.Driver
	pool   string
}

func (o ours) take() (netip.Addr, error) {
	r, err := o.driver.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: o.pool})
	if err != nil {
		return netip.Addr{}, err
	}
	p, err := netip.ParsePrefix(r.Address)
	return p.Addr(), err
}

func (o ours) give(a netip.Addr) error {
	_, err := o.driver.ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: o.pool, Address: a.String()})
	return err
}

// on makes a driver on a ledger.
func on(b *testing.B, s store.Store) *ipamdrv.Driver {
	b.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Store: s})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// fill makes a ledger in RAM with a pool that is as full as it is to be.
func fill(b *testing.B, pool netip.Prefix, n, size int) (*store.Memory, ours) {
	b.Helper()
	s := store.NewMemory()
	o := ours{driver: on(b, s)}
	r, err := o.driver.RequestPool(context.Background(), &ipam.RequestPoolRequest{Pool: pool.String()})
	if err != nil {
		b.Fatal(err)
	}
	o.pool = r.PoolID
	punch(b, o, n, size)
	return s, o
}

func openMemory(b *testing.B, pool netip.Prefix, n, size int) addresses {
	_, o := fill(b, pool, n, size)
	return o
}

func openBolt(b *testing.B, pool netip.Prefix, n, size int) addresses {
	from, o := fill(b, pool, n, size)
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var all []store.Op
	err = from.Range(context.Background(), "", func(kv store.KV) error {
		all = append(all, store.Put(kv.Key, kv.Value))
		return nil
	})
	if err == nil {
		_, err = s.Txn(context.Background(), nil, all)
	}
	if err != nil {
		b.Fatal(err)
	}
	o.driver = on(b, s)
	cycle(b, o) // the first use makes the index
	return o
}

// libnetwork is the default IPAM driver of Docker.
type libnetwork struct {
	driver *defaultipam.Allocator
	pool   string
}

func (l libnetwork) take() (netip.Addr, error) {
	n, _, err := l.driver.RequestAddress(l.pool, nil, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	a, _ := netip.AddrFromSlice(n.IP)
	return a.Unmap(), nil
}

func (l libnetwork) give(a netip.Addr) error { return l.driver.ReleaseAddress(l.pool, a.AsSlice()) }

func openLibnetwork(b *testing.B, pool netip.Prefix, n, size int) addresses {
	d, err := defaultipam.NewAllocator(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	local, _, err := d.GetDefaultAddressSpaces()
	if err != nil {
		b.Fatal(err)
	}
	p, err := d.RequestPool(ipamapi.PoolRequest{AddressSpace: local, Pool: pool.String(), V6: pool.Addr().Is6()})
	if err != nil {
		b.Fatal(err)
	}
	l := libnetwork{d, p.PoolID}
	punch(b, l, n, size)
	return l
}

// hostLocal is CNI's host-local.
type hostLocal struct {
	driver *allocator.IPAllocator
}

// id is what the one container of the benchmark is called.
const id = "bench"

func (h hostLocal) take() (netip.Addr, error) {
	c, err := h.driver.Get(id, "eth0", nil)
	if err != nil {
		return netip.Addr{}, err
	}
	a, _ := netip.AddrFromSlice(c.Address.IP)
	return a.Unmap(), nil
}

func (h hostLocal) give(netip.Addr) error { return h.driver.Release(id, "eth0") }

func openHostLocal(b *testing.B, pool netip.Prefix, n, size int) addresses {
	log.SetOutput(io.Discard)
	s, err := disk.New("bench", b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	set := allocator.RangeSet{{Subnet: types.IPNet{IP: pool.Addr().AsSlice(), Mask: net.CIDRMask(pool.Bits(), 32)}}}
	if err := set.Canonicalize(); err != nil {
		b.Fatal(err)
	}
	// Through its front door this takes hours: each address has it read the files of all.
	taken := make([]int, size)
	for i := range taken {
		taken[i] = i + 2
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(len(taken), func(i, j int) { taken[i], taken[j] = taken[j], taken[i] })
	base := pool.Addr().As4()
	for _, i := range taken[:n] {
		ip := net.IPv4(base[0], base[1]+byte(i>>16), base[2]+byte(i>>8), base[3]+byte(i))
		if _, err := s.Reserve(fmt.Sprint("c", i), "eth0", ip, "0"); err != nil {
			b.Fatal(err)
		}
	}
	return hostLocal{allocator.NewIPAllocator(&set, s, 0)}
}
