package ipamdrv_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"pgregory.net/rapid"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
)

// sharedMachine is two drivers of two nodes with one ledger, and networks that share one pool. held has the address of each network;
// several networks can have the same gateway.
type sharedMachine struct {
	nodes    [2]*ipamdrv.Driver
	store    *store.Memory
	networks []string
	held     map[netip.Addr][]string
	gateway  netip.Addr
	rests    map[string]string // options with a cooldown, the same for all networks
}

// TestSharedAgainstModel: no two networks get the same address, and none releases another's, with and without cooldowns.
func TestSharedAgainstModel(t *testing.T) {
	dir, made := t.TempDir(), 0
	journal := func() *journal.Journal {
		made++
		return journal.New(filepath.Join(dir, strconv.Itoa(made)))
	}
	synctest.Test(t, func(t *testing.T) { // see TestAgainstModel
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) { sharedAgainstModel(t, journal) })
	})
}

// sharedAgainstModel is one run of random steps.
func sharedAgainstModel(t *rapid.T, journal func() *journal.Journal) {
	s := &sharedMachine{store: store.NewMemory(), held: map[netip.Addr][]string{}}
	s.rests = rapid.SampledFrom([]map[string]string{nil, {"sticky": "off"}, {"quarantine": "2s"}, {"sticky": "4s"},
		{"quarantine": "2s", "sticky": "4s"}}).Draw(t, "rests")
	for i := range s.nodes {
		j := journal()
		defer j.Close()
		d, err := ipamdrv.New(ipamdrv.Config{Store: s.store, Own: store.NewMemory(), Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s.nodes[i] = d
	}
	t.Repeat(map[string]func(*rapid.T){
		"join": s.join, "leave": s.leave, "choose": s.choose, "choose more": s.choose, "ask": s.ask, "release": s.release,
		"release more": s.release, "gateway": s.askGateway,
		"wait": func(t *rapid.T) { wait(time.Duration(rapid.IntRange(1, 5).Draw(t, "s")) * time.Second) },
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
}

// node draws one of the drivers. Both have been told of each other's writes.
func (s *sharedMachine) node(t *rapid.T) *ipamdrv.Driver {
	synctest.Wait()
	return s.nodes[rapid.IntRange(0, 1).Draw(t, "node")]
}

// network draws one of the networks.
func (s *sharedMachine) network(t *rapid.T) string {
	if len(s.networks) == 0 {
		t.Skip("no network")
	}
	return s.networks[rapid.IntRange(0, len(s.networks)-1).Draw(t, "network")]
}

func (s *sharedMachine) join(t *rapid.T) {
	if len(s.networks) > 3 {
		t.Skip("enough")
	}
	options := map[string]string{"pool": "lan"}
	maps.Copy(options, s.rests)
	r, err := s.node(t).RequestPool(context.Background(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/29", Options: options})
	if err != nil || slices.Contains(s.networks, r.PoolID) {
		t.Fatalf("join: %+v, %v", r, err)
	}
	s.networks = append(s.networks, r.PoolID)
}

func (s *sharedMachine) leave(t *rapid.T) {
	n := s.network(t)
	if rapid.IntRange(0, 4).Draw(t, "stay") > 0 { // each leave writes the pool's record, so that all nodes load the pool again
		t.Skip("stays")
	}
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

// drop removes the address a of network n from the model.
func (s *sharedMachine) drop(a netip.Addr, n string) {
	left := slices.DeleteFunc(slices.Clone(s.held[a]), func(o string) bool { return o == n })
	if s.held[a] = left; len(left) > 0 {
		return
	}
	if delete(s.held, a); a == s.gateway {
		s.gateway = netip.Addr{}
	}
}

func (s *sharedMachine) choose(t *rapid.T) {
	n := s.network(t)
	r, err := s.node(t).RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: n, Options: s.container(t)})
	full := len(s.held) >= 5 || s.rests["quarantine"] != "" // one of six may be kept for a router
	if errors.Is(err, ipamdrv.ErrFull) && full {
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

// ask requests an exact address, which must succeed if no network has it, also during its cooldown.
func (s *sharedMachine) ask(t *rapid.T) {
	n, i := s.network(t), rapid.IntRange(1, 6).Draw(t, "address")
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	_, err := s.node(t).RequestAddress(context.Background(),
		&ipam.RequestAddressRequest{PoolID: n, Address: a.String(), Options: s.container(t)})
	free := len(s.held[a]) == 0
	if free != (err == nil) || err != nil && !errors.Is(err, ipamdrv.ErrInUse) {
		t.Fatalf("ask for %s: %v; held are %v", a, err, s.held)
	}
	if free {
		s.held[a] = []string{n}
	}
}

// container draws the options of a container's request.
func (s *sharedMachine) container(t *rapid.T) map[string]string {
	return rapid.SampledFrom([]map[string]string{nil, by("c1"), by("c2")}).Draw(t, "container")
}

func (s *sharedMachine) askGateway(t *rapid.T) {
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

func (s *sharedMachine) release(t *rapid.T) {
	n, i := s.network(t), rapid.IntRange(1, 6).Draw(t, "address")
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	if rapid.Bool().Draw(t, "holder") && len(s.held[a]) > 0 {
		n = s.held[a][0]
	}
	_, err := s.node(t).ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: n, Address: a.String()})
	if err != nil {
		t.Fatalf("release: %v", err)
	}
	s.drop(a, n)
}
