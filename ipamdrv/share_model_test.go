package ipamdrv_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"
	"pgregory.net/rapid"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// sharers are two drivers on one ledger, as two nodes of a cluster would be, and networks that share one pool. held says
// which network has which address; a gateway may be several networks'.
type sharers struct {
	nodes    [2]*ipamdrv.Driver
	store    *store.Memory
	networks []string
	held     map[netip.Addr][]string
	gateway  netip.Addr
}

// TestSharedAgainstModel: whatever networks and nodes do, no two have one address, and nobody ends what is another's.
func TestSharedAgainstModel(t *testing.T) {
	dir, made := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		s := &sharers{store: store.NewMemory(), held: map[netip.Addr][]string{}}
		for i := range s.nodes {
			made++
			journal := store.NewJournal(filepath.Join(dir, strconv.Itoa(made)))
			defer journal.Close()
			d, err := ipamdrv.New(ipamdrv.Config{Store: s.store, Own: store.NewMemory(), Journal: journal})
			if err != nil {
				t.Fatal(err)
			}
			s.nodes[i] = d
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": s.join, "leave": s.leave, "choose": s.choose, "choose more": s.choose, "release": s.release,
			"gateway": s.askGateway,
			"": func(t *rapid.T) {
				n := 0
				for _, list := range leases(t, s.store) {
					n += len(list)
				}
				if n != len(s.held) {
					t.Fatalf("%d leases, want %v", n, s.held)
				}
			},
		})
	})
}

// node draws one of the drivers.
func (s *sharers) node(t *rapid.T) *ipamdrv.Driver {
	return s.nodes[rapid.IntRange(0, 1).Draw(t, "node")]
}

// network draws one of the networks.
func (s *sharers) network(t *rapid.T) string {
	if len(s.networks) == 0 {
		t.Skip("no network")
	}
	return s.networks[rapid.IntRange(0, len(s.networks)-1).Draw(t, "network")]
}

func (s *sharers) join(t *rapid.T) {
	if len(s.networks) > 3 {
		t.Skip("enough")
	}
	r, err := s.node(t).RequestPool(context.Background(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/29",
		Options: map[string]string{"pool": "lan"}})
	if err != nil || slices.Contains(s.networks, r.PoolID) {
		t.Fatalf("join: %+v, %v", r, err)
	}
	s.networks = append(s.networks, r.PoolID)
}

func (s *sharers) leave(t *rapid.T) {
	n := s.network(t)
	if _, err := s.node(t).ReleasePool(context.Background(), &ipam.ReleasePoolRequest{PoolID: n}); err != nil {
		t.Fatalf("leave: %v", err)
	}
	s.networks = slices.DeleteFunc(s.networks, func(o string) bool { return o == n })
	for a := range s.held {
		s.drop(a, n)
	}
	if len(s.networks) == 0 && len(keys(t, s.store, "ipam/")) > 0 {
		t.Fatalf("the last has left, and the ledger has %q", keys(t, s.store, "ipam/"))
	}
	if len(s.networks) == 0 {
		s.gateway = netip.Addr{}
	}
}

// drop ends what n has of a.
func (s *sharers) drop(a netip.Addr, n string) {
	left := slices.DeleteFunc(slices.Clone(s.held[a]), func(o string) bool { return o == n })
	if s.held[a] = left; len(left) > 0 {
		return
	}
	if delete(s.held, a); a == s.gateway {
		s.gateway = netip.Addr{}
	}
}

func (s *sharers) choose(t *rapid.T) {
	n := s.network(t)
	r, err := s.node(t).RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: n})
	if errors.Is(err, ipamdrv.ErrFull) && len(s.held) >= 5 { // one of six may be kept for a router
		return
	}
	if err != nil {
		t.Fatalf("choose: %v; held are %v", err, s.held)
	}
	a := netip.MustParsePrefix(r.Address).Addr()
	if len(s.held[a]) > 0 {
		t.Fatalf("%s was given twice", a)
	}
	s.held[a] = []string{n}
}

func (s *sharers) askGateway(t *rapid.T) {
	n := s.network(t)
	gw := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2"}).Draw(t, "gateway")
	a := netip.MustParseAddr(gw)
	_, err := s.node(t).RequestAddress(context.Background(),
		&ipam.RequestAddressRequest{PoolID: n, Address: gw, Options: asGateway})
	free := a == s.gateway || !s.gateway.IsValid() && len(s.held[a]) == 0
	if free != (err == nil) || err != nil && !errors.Is(err, ipamdrv.ErrInUse) {
		t.Fatalf("gateway %s: %v; it is %s, held are %v", gw, err, s.gateway, s.held)
	}
	if free && !slices.Contains(s.held[a], n) {
		s.gateway, s.held[a] = a, append(s.held[a], n)
	}
}

func (s *sharers) release(t *rapid.T) {
	n, i := s.network(t), rapid.IntRange(1, 6).Draw(t, "address")
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	_, err := s.node(t).ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: n, Address: a.String()})
	if err != nil {
		t.Fatalf("release: %v", err)
	}
	s.drop(a, n)
}
