//go:build kernel

package dhcp_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/ipamdrv/dhcp"
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

// TestServers: subnet, gateway and addresses are the server's; a released address is free at the server.
func TestServers(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			srv := start(dhcptest.New(t))
			c := newClient(t)
			r, err := c.request("")
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
