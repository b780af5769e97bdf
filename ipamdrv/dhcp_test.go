package ipamdrv_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// dhcpServer is a DHCP server of 10.8.0.0/24 with the addresses from 10.8.0.50 on. Its leases last for an hour.
type dhcpServer struct {
	mu     sync.Mutex
	leased map[netip.Addr]dhcp.Lease
	calls  []string
	away   bool
	refuse bool // it refuses to renew
	id     netip.Addr
}

func newDHCPServer() *dhcpServer {
	return &dhcpServer{leased: map[netip.Addr]dhcp.Lease{}, id: netip.MustParseAddr("10.8.0.2")}
}

func (s *dhcpServer) note(format string, args ...any) {
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
}

func (s *dhcpServer) HostID(string) (string, error) { return "020000000001", nil }

func (s *dhcpServer) Discover(_ context.Context, seg dhcp.Segment, _ dhcp.Identity) (dhcp.Offer, error) {
	if seg.Device != "lan0" {
		return dhcp.Offer{}, dhcp.ErrDevice
	}
	return dhcp.Offer{Server: s.id, Addr: netip.MustParsePrefix("10.8.0.50/24"), Router: netip.MustParseAddr("10.8.0.254")}, nil
}

func (s *dhcpServer) Acquire(_ context.Context, _ dhcp.Segment, who dhcp.Identity, want netip.Addr) (netip.Addr, dhcp.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("acquire %s %s", who.ID, want)
	if s.away {
		return netip.Addr{}, dhcp.Lease{}, dhcp.ErrNoAnswer
	}
	a := netip.MustParseAddr("10.8.0.50")
	maps.DeleteFunc(s.leased, func(_ netip.Addr, l dhcp.Lease) bool { return !l.Expires.IsZero() && time.Now().After(l.Expires) })
	for l, taken := s.leased[a]; taken && l.Client != who.ID; l, taken = s.leased[a] {
		a = a.Next()
	}
	if want.IsValid() && s.leased[want].Client != "" && s.leased[want].Client != who.ID {
		return netip.Addr{}, dhcp.Lease{}, dhcp.ErrRefused
	} else if want.IsValid() {
		a = want
	}
	return a, s.lease(a, who), nil
}

// lease leases an address from now on.
func (s *dhcpServer) lease(a netip.Addr, who dhcp.Identity) dhcp.Lease {
	now := time.Now().UTC()
	l := dhcp.Lease{Server: s.id, Client: who.ID, MAC: who.MAC, Host: who.Host,
		Renew: now.Add(30 * time.Minute), Rebind: now.Add(50 * time.Minute), Expires: now.Add(time.Hour)}
	s.leased[a] = l
	return l
}

func (s *dhcpServer) Renew(_ context.Context, _ dhcp.Segment, a netip.Addr, l dhcp.Lease, anyServer bool) (dhcp.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("renew %s any=%t", a, anyServer)
	switch {
	case s.away, !anyServer && l.Server != s.id:
		return dhcp.Lease{}, dhcp.ErrNoAnswer
	case s.refuse:
		return dhcp.Lease{}, dhcp.ErrRefused
	}
	return s.lease(a, l.Identity()), nil
}

func (s *dhcpServer) Release(_ context.Context, _ dhcp.Segment, a netip.Addr, l dhcp.Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("release %s of %s", a, l.Client)
	if s.leased[a].Client == l.Client {
		delete(s.leased, a)
	}
	return nil
}

func (s *dhcpServer) Decline(_ context.Context, _ dhcp.Segment, a netip.Addr, l dhcp.Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("decline %s of %s", a, l.Client)
	return nil
}

// do does something to the server, or looks at it.
func (s *dhcpServer) do(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
}

// expect compares the calls since the last time, without those to be left out.
func (s *dhcpServer) expect(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.calls, want) {
		t.Errorf("the server is asked:\n%s\nwant:\n%s", strings.Join(s.calls, "\n"), strings.Join(want, "\n"))
	}
	s.calls = nil
}

// withServer replaces the driver by one that knows the server, and whose leases are renewed until the returned function is called.
func (b *fixture) withServer(s *dhcpServer) (log *observer.ObservedLogs, stop func()) {
	b.Helper()
	core, log := observer.New(zap.InfoLevel)
	var err error
	if b.d, err = ipamdrv.New(ipamdrv.Config{Store: b.store, DHCP: s, Log: zap.New(core)}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- b.d.RenewLeases(ctx) }()
	return log, func() { cancel(); <-ended }
}

// TestDHCPRefused: what cannot be together with the option dhcp, and what it needs.
func TestDHCPRefused(t *testing.T) {
	for _, test := range []struct {
		options []string
		subnet  string
		within  string
		want    string
	}{
		{options: []string{"dhcp=yes"},
			want: "request pool: ipam option dhcp: needs the option netdevice: the host's device on the segment of the DHCP server"},
		{options: []string{"netdevice=lan0"}, want: "request pool: ipam option netdevice: is for dhcp=yes only"},
		{options: []string{"dhcp=yes", "netdevice=lan0", "sticky=1h"},
			want: "request pool: ipam options dhcp and sticky: the DHCP server chooses the addresses; say only one of them"},
		{options: []string{"dhcp=yes", "netdevice=lan0"}, subnet: "fd00::/64", want: "pool fd00::/64: request: ipam option dhcp: is for IPv4; with " +
			"slaac=yes and --subnet fe80::/64 the IPv6 addresses come from routers"},
		{options: []string{"dhcp=yes", "netdevice=lan0"}, subnet: "10.8.0.0/24", within: "10.8.0.0/25", want: "pool 10.8.0.0/24: request: ipam option dhcp: " +
			"not together with --ip-range: the DHCP server chooses the addresses"},
		{options: []string{"dhcp=yes", "netdevice=lan0"}, subnet: "10.8.0.0/16", want: "pool 10.8.0.0/16: request: ipam option dhcp: server 10.8.0.2 on lan0 " +
			"has addresses of 10.8.0.0/24; create the network with --subnet=10.8.0.0/24"},
		{options: []string{"dhcp=yes", "netdevice=lan0"}, want: "request pool: ipam option dhcp: server 10.8.0.2 on lan0 " +
			"has addresses of 10.8.0.0/24; create the network with --subnet=10.8.0.0/24"},
	} {
		withFixture(t, func(b *fixture) {
			_, stop := b.withServer(newDHCPServer())
			defer stop()
			_, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: test.subnet, SubPool: test.within, Options: pairs(test.options)})
			wantError(b.T, err, ipamdrv.ErrInvalid, test.want)
		})
	}
}

// TestDHCPLife: a lease is the server's, as long as the container has the address. A container that was renamed keeps its lease when another
// one of its former name comes.
func TestDHCPLife(t *testing.T) {
	withFixture(t, func(b *fixture) {
		s := newDHCPServer()
		_, stop := b.withServer(s)
		defer stop()
		r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: "10.8.0.0/24", Options: pairs([]string{"dhcp=yes", "netdevice=lan0"})})
		if err != nil || r.Pool != "10.8.0.0/24" || r.Data["com.docker.network.gateway"] != "10.8.0.254/24" {
			t.Fatalf("RequestPool: %+v, %v", r, err)
		}
		n := r.PoolID
		b.gives(n, "", by("web"), "10.8.0.50/24")
		b.gives(n, "", by("web"), "10.8.0.51/24")
		anonymous := s.leased[netip.MustParseAddr("10.8.0.51")].Client
		if !strings.HasPrefix(anonymous, "passthrough-") {
			t.Errorf("the second client is %s", anonymous)
		}
		s.expect(t, "acquire web@020000000001 invalid IP", "acquire web@020000000001 invalid IP", "acquire "+anonymous+" invalid IP")
		b.refuses(n, "10.8.0.50", by("db"), dhcp.ErrRefused, "pool 10.8.0.0/24: request address 10.8.0.50: refused by the DHCP server")
		s.do(func() { s.calls = nil })
		b.release(n, "10.8.0.50")
		b.release(n, "10.8.0.50")
		s.expect(t, "release 10.8.0.50 of web@020000000001")
		b.gives(n, "10.8.0.254", asGateway, "10.8.0.254/24")
		b.gives(n, "10.8.0.60", nil, "10.8.0.60/24")
		s.do(func() { s.calls = nil })
		b.releasePool(n)
		wait(2 * time.Minute)
		s.do(func() {
			slices.Sort(s.calls)
			if len(s.calls) != 2 || s.calls[0] != "release 10.8.0.51 of "+anonymous || len(s.leased) != 0 {
				t.Errorf("the pool was removed: %q, %v", s.calls, s.leased)
			}
		})
	})
}

// TestDHCPRenewal: a lease is renewed at its server, then at any, and leased again after it has expired, also by another process.
func TestDHCPRenewal(t *testing.T) {
	withFixture(t, func(b *fixture) {
		s := newDHCPServer()
		_, stop := b.withServer(s)
		n := b.poolWith("10.8.0.0/24", "dhcp=yes", "netdevice=lan0")
		b.gives(n, "", by("web"), "10.8.0.50/24")
		s.do(func() { s.calls = nil })
		wait(59 * time.Minute)
		s.expect(t, "renew 10.8.0.50 any=false")

		stop() // the lease was renewed after 30 minutes; the record has that
		_, stop = b.withServer(s)
		wait(2 * time.Minute)
		s.expect(t, "renew 10.8.0.50 any=false")

		s.do(func() { s.id = netip.MustParseAddr("10.8.0.3") }) // another server of the segment
		wait(55 * time.Minute)
		s.do(func() {
			if last := s.calls[len(s.calls)-1]; last != "renew 10.8.0.50 any=true" || s.calls[0] != "renew 10.8.0.50 any=false" {
				t.Errorf("with another server: %q", s.calls)
			}
		})
		stop()

		wait(3 * time.Hour) // the plugin is off
		s.do(func() { s.calls = nil })
		log, stop := b.withServer(s)
		wait(10 * time.Second)
		s.expect(t, "acquire web@020000000001 10.8.0.50")
		if log.FilterMessageSnippet("expired while it was not renewed").Len() != 1 {
			t.Errorf("log: %v", log.All())
		}

		s.do(func() { // the server has forgotten the lease, and another client has the address
			s.refuse = true
			s.leased[netip.MustParseAddr("10.8.0.50")] = dhcp.Lease{Client: "other"}
		})
		wait(31 * time.Minute)
		if log.FilterMessageSnippet("not leased to it any more").Len() == 0 {
			t.Errorf("log: %v", log.All())
		}
		s.do(func() { s.calls = nil })
		b.release(n, "10.8.0.50")
		s.expect(t, "release 10.8.0.50 of web@020000000001")
		wait(time.Hour)
		s.expect(t)
		stop()
	})
}

// TestDHCPCrash kills the driver at each of its transactions, in a life of two containers that lasts longer than their leases. After a restart
// each address in the ledger is leased at the server. A lease that is not in the ledger expires: what was asked for and not recorded, and what
// was released here and not there.
func TestDHCPCrash(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		t.Run(fate.String(), func(t *testing.T) {
			for k := 1; ; k++ {
				dead := false
				withFixture(t, func(b *fixture) {
					s, ledger := newDHCPServer(), b.store
					crash := storetest.NewCrash(ledger, k, fate)
					b.dhcpLife(s, crash)
					dead = crash.Dead()
					b.store = ledger.Reopen()
					_, stop := b.withServer(s)
					wait(70 * time.Minute)
					stop()
					b.sameLeases(k, s)
				})
				if !dead {
					if k < 6 {
						t.Errorf("the scenario has %d transactions", k-1)
					}
					return
				}
			}
		})
	}
}

// dhcpLife is the scenario. A call that fails ends it.
func (b *fixture) dhcpLife(s *dhcpServer, ledger store.Store) {
	b.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Store: ledger, DHCP: s})
	if err != nil {
		b.Fatal(err)
	}
	b.d = d
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- d.RenewLeases(ctx) }()
	defer func() { cancel(); <-ended }()
	r, err := d.RequestPool(ctx, &ipam.RequestPoolRequest{Pool: "10.8.0.0/24", Options: pairs([]string{"dhcp=yes", "netdevice=lan0"})})
	if err != nil {
		return
	}
	for _, name := range []string{"web", "db"} {
		if _, err = b.request(r.PoolID, "", by(name)); err != nil {
			return
		}
	}
	wait(61 * time.Minute)
	if _, err = d.ReleaseAddress(ctx, &ipam.ReleaseAddressRequest{PoolID: r.PoolID, Address: "10.8.0.50"}); err != nil {
		return
	}
	if _, err = b.request(r.PoolID, "", by("cache")); err == nil {
		_, _ = d.ReleaseAddress(ctx, &ipam.ReleaseAddressRequest{PoolID: r.PoolID, Address: "10.8.0.51"}) // it may fail, as all
	}
}

// sameLeases compares the ledger with what is leased at the server and has not expired.
func (b *fixture) sameLeases(k int, s *dhcpServer) {
	b.Helper()
	recorded := map[netip.Addr]string{}
	err := b.store.Range(b.Context(), "ipam/lease/", func(kv store.KV) error {
		l, err := pool.DecodeLease(kv)
		if err == nil && l.DHCP != nil {
			recorded[netip.MustParseAddr(kv.Key[strings.LastIndexByte(kv.Key, '/')+1:])] = l.DHCP.Client
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	leased := map[netip.Addr]string{}
	for a, l := range s.leased {
		if time.Now().Before(l.Expires) {
			leased[a] = l.Client
		}
	}
	if !maps.Equal(recorded, leased) {
		b.Errorf("crash at %d: the ledger has %v, the server %v", k, recorded, leased)
	}
}
