//go:build kernel

package dhcp_test

import (
	"context"
	"fmt"
	"net/netip"
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
	"github.com/mellanox/passthrough/test/harness/dhcptest"
)

func TestMain(m *testing.M) { dhcptest.Main(m) }

// client is a driver whose pool a DHCP server serves.
type client struct {
	*testing.T
	store *store.Memory
	d     *ipamdrv.Driver
	log   *observer.ObservedLogs
	pool  string
}

// newClient returns a driver.
func newClient(t *testing.T) *client {
	c := &client{T: t, store: store.NewMemory()}
	c.restart()
	return c
}

// restart replaces the driver by a new one with the same ledger.
func (c *client) restart() {
	c.Helper()
	core, log := observer.New(zap.DebugLevel)
	d, err := ipamdrv.New(ipamdrv.Config{Store: c.store, DHCP: dhcp.New(), Log: zap.New(core)})
	if err != nil {
		c.Fatal(err)
	}
	c.d, c.log = d, log
}

// request creates the pool, with options NAME=VALUE beside those that it needs.
func (c *client) request(subnet string, options ...string) (*ipam.RequestPoolResponse, error) {
	all := map[string]string{"dhcp": "yes", "netdevice": dhcptest.Device}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		all[name] = value
	}
	r, err := c.d.RequestPool(c.Context(), &ipam.RequestPoolRequest{AddressSpace: "passthrough-local", Pool: subnet, Options: all})
	if err == nil {
		c.pool = r.PoolID
	}
	return r, err
}

// get requests an address for a container.
func (c *client) get(name, address string) (string, error) {
	r, err := c.d.RequestAddress(c.Context(), &ipam.RequestAddressRequest{PoolID: c.pool, Address: address,
		Options: map[string]string{"com.docker.network.endpoint.name": name}})
	if err != nil {
		return "", err
	}
	return r.Address, nil
}

// mustGet is get for a request that succeeds.
func (c *client) mustGet(name, address string) netip.Addr {
	c.Helper()
	got, err := c.get(name, address)
	if err != nil {
		c.Fatal(err)
	}
	p, err := netip.ParsePrefix(got)
	if err != nil || p.Masked().String() != dhcptest.Subnet {
		c.Fatalf("address %s, %v", got, err)
	}
	return p.Addr()
}

// release releases an address.
func (c *client) release(a netip.Addr) {
	c.Helper()
	if _, err := c.d.ReleaseAddress(c.Context(), &ipam.ReleaseAddressRequest{PoolID: c.pool, Address: a.String()}); err != nil {
		c.Fatal(err)
	}
}

// servers are the servers that each test runs with.
var servers = map[string]func(*dhcptest.Segment) *dhcptest.Server{
	"dnsmasq": func(s *dhcptest.Segment) *dhcptest.Server { return s.Dnsmasq("--no-ping") },
	"kea":     func(s *dhcptest.Segment) *dhcptest.Server { return s.Kea(600) },
}

// TestServers: gateway and addresses are the server's; a released address is free at the server.
func TestServers(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			srv := start(dhcptest.New(t))
			c := newClient(t)
			r, err := c.request(dhcptest.Subnet)
			if err != nil || r.Pool != dhcptest.Subnet || r.Data["com.docker.network.gateway"] != dhcptest.Router+"/24" {
				t.Fatalf("RequestPool: %+v, %v", r, err)
			}
			a, b := c.mustGet("web", ""), c.mustGet("db", "")
			if a == b {
				t.Errorf("two containers have %s", a)
			}
			srv.Wait("leases of both", func() bool { return strings.Contains(srv.Leases(), a.String()) && strings.Contains(srv.Leases(), "db") })
			third := c.mustGet("cache", "")
			if _, err := c.get("one too many", ""); err == nil || !strings.Contains(err.Error(), "no DHCP server answered on lan0") {
				t.Errorf("of a server without free addresses: %v", err)
			}
			c.release(third)
			if got := c.mustGet("other", ""); got != third {
				t.Errorf("the address that was released is %s; another container gets %s", third, got)
			}
			c.release(a)
			if got := c.mustGet("web", ""); got != a {
				t.Errorf("the container has %s after a restart, and had %s", got, a)
			}
		})
	}
}

// renewing renews the leases until the returned function is called.
func (c *client) renewing() (stop func()) {
	ctx, cancel := context.WithCancel(c.Context())
	ended := make(chan error)
	go func() { ended <- c.d.RenewLeases(ctx) }()
	return sync.OnceFunc(func() { cancel(); <-ended })
}

// lease returns what the ledger has of an address.
func (c *client) lease(a netip.Addr) dhcp.Lease {
	c.Helper()
	id := strings.TrimPrefix(c.pool, "v1:")
	l, ok, err := pool.Ledger{Store: c.store}.LeaseOf(c.Context(), id, a)
	if err != nil || !ok || l.DHCP == nil {
		c.Fatalf("lease of %s: %+v, %v", a, l, err)
	}
	return *l.DHCP
}

// TestRenew: a lease is renewed by its server, by any server, and no more after its release.
func TestRenew(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			srv := start(dhcptest.New(t))
			d, seg := dhcp.New(), dhcp.Segment{Device: dhcptest.Device}
			a, l, err := d.Acquire(t.Context(), seg, dhcp.Identity{ID: "web@1", Host: "web"}, netip.Addr{})
			if err != nil || l.Server.String() != dhcptest.Address || l.Client != "web@1" || l.MAC == "" || l.Host != "web" {
				t.Fatalf("acquired %s, %+v, %v", a, l, err)
			}
			for _, anyServer := range []bool{false, true} {
				got, err := d.Renew(t.Context(), seg, a, l, anyServer)
				if err != nil || !got.Expires.After(l.Expires) || got.Renew.After(got.Rebind) || got.Rebind.After(got.Expires) {
					t.Errorf("renewed with anyServer=%t: %+v, %v; before: %+v", anyServer, got, err, l)
				}
				l = got
			}
			if err := d.Release(t.Context(), seg, a, l); err != nil {
				t.Fatal(err)
			}
			released := map[string]string{"dnsmasq": "DHCPRELEASE(" + dhcptest.ServerDevice + ") " + a.String(),
				"kea": "address " + a.String() + " was released properly"}
			srv.WaitLog(released[name])
		})
	}
}

// TestRenewalKea: a lease is renewed at its server, by any server if that is away, and leased again after it has expired while the plugin was
// off. The leases last for six seconds.
func TestRenewalKea(t *testing.T) {
	segment := dhcptest.New(t)
	srv := segment.Kea(6)
	c := newClient(t)
	if _, err := c.request(dhcptest.Subnet); err != nil {
		t.Fatal(err)
	}
	a := c.mustGet("web", "")
	first := c.lease(a)
	stop := c.renewing()
	defer func() { stop() }()
	srv.Wait("two renewals", func() bool { return c.lease(a).Expires.After(first.Expires.Add(3 * time.Second)) })
	if got := c.lease(a).Server.String(); got != dhcptest.Address {
		t.Errorf("the server is %s", got)
	}

	srv.Stop()
	const other = "10.8.0.3"
	segment.Move(dhcptest.Address, other)
	srv = segment.Kea(6) // with the leases of the first
	srv.Wait("a lease of the other server", func() bool { return c.lease(a).Server.String() == other })

	stop()
	srv.Wait("the end of the lease", func() bool { return time.Now().After(c.lease(a).Expires.Add(time.Second)) })
	c.restart()
	stop = c.renewing()
	srv.Wait("the same address again", func() bool { return time.Now().Before(c.lease(a).Expires) })
	if c.log.FilterMessageSnippet("expired while it was not renewed").Len() != 1 {
		t.Errorf("log: %v", c.log.All())
	}
	c.release(a)
	srv.WaitLog("address " + a.String() + " was released properly")
}

// TestExact: a container gets the address that it asks for, and no other.
func TestExact(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			start(dhcptest.New(t))
			c := newClient(t)
			if _, err := c.request(dhcptest.Subnet); err != nil {
				t.Fatal(err)
			}
			if got := c.mustGet("web", "10.8.0.52"); got.String() != "10.8.0.52" {
				t.Errorf("the address is %s", got)
			}
			if got, err := c.get("db", "10.8.0.99"); err == nil || !strings.Contains(err.Error(), "and not 10.8.0.99") {
				t.Errorf("an address that the server does not have: %s, %v", got, err)
			}
		})
	}
}

// TestReservation: the server knows a container by its name.
func TestReservation(t *testing.T) {
	dhcptest.New(t).Dnsmasq("--no-ping", "--dhcp-host=db-1,10.8.0.77")
	c := newClient(t)
	if _, err := c.request(dhcptest.Subnet); err != nil {
		t.Fatal(err)
	}
	c.mustGet("web", "")
	if got := c.mustGet("db_1", ""); got.String() != "10.8.0.77" {
		t.Errorf("the address of db_1 is %s", got)
	}
}

// TestReservationByMAC: the server knows a container by the MAC that its user gave, as an engine tells it with the setting REQUIRE_MAC.
func TestReservationByMAC(t *testing.T) {
	dhcptest.New(t).Dnsmasq("--no-ping", "--dhcp-host=02:81:11:00:00:05,10.8.0.88")
	c := newClient(t)
	if _, err := c.request(dhcptest.Subnet); err != nil {
		t.Fatal(err)
	}
	for _, options := range []map[string]string{
		{"com.docker.network.endpoint.macaddress": "02:81:11:00:00:05"},
		{"com.docker.network.endpoint.macaddress": "02:81:11:00:00:05", "com.docker.network.endpoint.name": "web"},
	} {
		r, err := c.d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: c.pool, Options: options})
		if err != nil || r.Address != "10.8.0.88/24" {
			t.Fatalf("with %v: %+v, %v", options, r, err)
		}
		c.release(netip.MustParseAddr("10.8.0.88"))
	}
}

// TestCreateRefused: what is wrong is said when the network is created.
func TestCreateRefused(t *testing.T) {
	dhcptest.New(t).Dnsmasq()
	for _, test := range []struct {
		subnet, device, want string
	}{
		{"10.9.0.0/24", dhcptest.Device, "device lan0: device not usable: the host has no address of 10.9.0.0/24 on it, to which DHCP servers could answer"},
		{"10.8.0.0/16", dhcptest.Device, "server 10.8.0.2 on lan0 has addresses of 10.8.0.0/24; create the network with --subnet=10.8.0.0/24"},
		{"", dhcptest.Device, "server 10.8.0.2 on lan0 has addresses of 10.8.0.0/24; create the network with --subnet=10.8.0.0/24"},
		{"", "lan1", "device lan1: device not usable: the host has no such device"},
		{"", "lo", "device lo: device not usable: it is down"},
	} {
		c := newClient(t)
		if _, err := c.request(test.subnet, "netdevice="+test.device); err == nil || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%s on %s: %v\nwant %s", test.subnet, test.device, err, test.want)
		}
	}
}

// TestBurst: containers that start at once share the socket.
func TestBurst(t *testing.T) {
	dhcptest.New(t).Dnsmasq("--no-ping", "--dhcp-range=10.8.0.100,10.8.0.199,120")
	c := newClient(t)
	if _, err := c.request(dhcptest.Subnet); err != nil {
		t.Fatal(err)
	}
	var starts sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for i := range 60 {
		starts.Go(func() {
			got, err := c.get(fmt.Sprintf("c%d", i), "")
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[got] {
				t.Errorf("container %d: %s, %v", i, got, err)
			}
			seen[got] = true
		})
	}
	starts.Wait()
}
