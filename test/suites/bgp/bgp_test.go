//go:build kernel

package bgp

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// page has the configurations.
const page = "../../../docs/l3.md"

const (
	distributed = 5 * time.Second
	holdTime    = 9 * time.Second // of the configurations
)

// A host is a namespace with BIRD or FRR and one device, e0, on the bridge of all.
type host struct {
	name  string
	dir   string // of the daemon's files
	proto string // of the routes that the daemon adds
	host  *hw.Host
	e0    hw.Netdev
}

// TestDistribution: a route that a host announces is in the other host's main table within seconds, and goes when it is withdrawn or when
// its host dies. Routes of other programs, also in the plugin's table, and destinations that the router does not want, are not distributed.
func TestDistribution(t *testing.T) {
	bridge(t)
	first := newHost(t, "host1", "192.0.2.11/24", "2001:db8:1::11/64")
	first.bird(t, config(t, "BIRD on a host"))
	second := routed(t)
	first.announce(t, "10.1.1.5/32", "fd00:1:1::5/128", "10.1.3.0/24", "10.200.0.1/32")
	second.announce(t, "10.1.2.5/32", "fd00:1:2::5/128")
	first.sh(t, "ip route add 10.1.1.6 dev e0 table 117 proto static; ip route add 10.1.1.7 dev e0 table 118 proto 117")
	second.wantRoutes(t, distributed, "10.1.1.5 10.1.3.0/24 fd00:1:1::5")
	first.wantRoutes(t, distributed, "10.1.2.5 fd00:1:2::5")
	first.withdraw(t, "10.1.1.5/32", "fd00:1:1::5/128")
	second.wantRoutes(t, distributed, "10.1.3.0/24")
	Sh(t, "ip link set to-host1 down") // no message says that the host is gone
	second.wantRoutes(t, holdTime+distributed, "")
}

// TestFRR: a host with FRR beside one with BIRD. Of IPv6 it announces its whole subnet, always.
func TestFRR(t *testing.T) {
	bridge(t)
	first := newHost(t, "host1", "192.0.2.11/24", "2001:db8:1::11/64")
	first.frr(t, config(t, "FRR on a host"))
	second := routed(t)
	second.wantRoutes(t, distributed, "fd00:1:1::/64")
	first.announce(t, "10.1.1.5/32", "fd00:1:1::5/128", "10.1.3.0/24", "10.200.0.1/32")
	second.announce(t, "10.1.2.5/32", "fd00:1:2::5/128")
	first.sh(t, "ip route add 10.1.1.7 dev e0 table 118 proto 117")
	second.wantRoutes(t, distributed, "10.1.1.5 10.1.3.0/24 fd00:1:1::/64")
	first.wantRoutes(t, distributed, "10.1.2.5 fd00:1:2::5")
	first.withdraw(t, "10.1.1.5/32", "fd00:1:1::5/128")
	second.wantRoutes(t, distributed, "10.1.3.0/24 fd00:1:1::/64")
	second.withdraw(t, "10.1.2.5/32", "fd00:1:2::5/128")
	first.wantRoutes(t, distributed, "")
	if left := first.sh(t, "ip route show 10.1.1.5"); left != "" {
		t.Errorf("the main table has a route that was withdrawn: %s", left)
	}
	Sh(t, "ip link set to-host1 down")
	second.wantRoutes(t, holdTime+distributed, "")
}

// TestNoIPv6: the error about a device without IPv6 says so.
func TestNoIPv6(t *testing.T) {
	bridge(t)
	h := newHost(t, "host3", "192.0.2.11/24")
	h.sh(t, "sysctl -qw net.ipv6.conf.e0.disable_ipv6=1")
	err := h.host.Announce(h.e0, netip.MustParsePrefix("fd00:1:1::5/128"))
	if !errors.Is(err, hw.ErrUnsupported) || !strings.Contains(err.Error(), "IPv6 is disabled on it (net.ipv6.conf.e0.disable_ipv6)") {
		t.Errorf("error is %v", err)
	}
	h.announce(t, "10.1.1.5/32")
}

// bridge makes the bridge of all hosts, and a place for their namespaces that is this process's own.
func bridge(t *testing.T) {
	t.Helper()
	Sh(t, `mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link add br0 type bridge && ip link set br0 up`)
	t.Cleanup(func() { Sh(t, "ip link del br0") })
}

// routed makes the router and the second host, with BIRD, and waits until the router hears from both hosts.
func routed(t *testing.T) (second host) {
	t.Helper()
	second = newHost(t, "host2", "198.51.100.12/24", "2001:db8:2::12/64")
	router := newHost(t, "router", "192.0.2.1/24", "2001:db8:1::1/64")
	router.leg(t, "e1", "198.51.100.1/24", "2001:db8:2::1/64")
	router.bird(t, config(t, "BIRD on the router"))
	second.bird(t, strings.NewReplacer("192.0.2.11", "198.51.100.12", "65011", "65012", "192.0.2.1;", "198.51.100.1;").
		Replace(config(t, "BIRD on a host")))
	for _, protocol := range []string{"host1", "host2"} {
		Within(t, time.Minute, func() string {
			if state := router.sh(t, "birdc -s "+router.dir+"/sock show protocols "+protocol); !strings.Contains(state, "Established") {
				return state
			}
			return ""
		})
	}
	return second
}

// config returns the configuration below a heading of the page.
func config(t *testing.T, heading string) string {
	t.Helper()
	return strings.Join(docs.Commands(t, page, heading), "\n")
}

// newHost makes a namespace with addresses.
func newHost(t *testing.T, name string, addresses ...string) host {
	t.Helper()
	h := host{name: name, dir: t.TempDir(), proto: "bird"}
	Sh(t, "ip netns add "+name+" && ip link add to-"+name+" type veth peer name e0 netns "+name+" && ip link set to-"+name+" master br0 up")
	t.Cleanup(func() { Sh(t, "ip link del to-"+name+" && ip netns del "+name) }) // the kernel takes its time to remove what is in a namespace
	h.sh(t, "ip link set lo up; ip link set e0 up")
	h.address(t, "e0", addresses...)
	h.host = open(t, name)
	var err error
	if h.e0, err = h.host.Netdev("e0"); err != nil {
		t.Fatal(err)
	}
	return h
}

// leg gives the namespace another device on the bridge.
func (h host) leg(t *testing.T, device string, addresses ...string) {
	t.Helper()
	Sh(t, "ip link add to-"+device+" type veth peer name "+device+" netns "+h.name+" && ip link set to-"+device+" master br0 up")
	t.Cleanup(func() { Sh(t, "ip link del to-"+device) })
	h.sh(t, "ip link set "+device+" up")
	h.address(t, device, addresses...)
}

// address gives a device addresses.
func (h host) address(t *testing.T, device string, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		h.sh(t, "ip addr add "+a+" dev "+device+map[bool]string{true: " nodad"}[strings.Contains(a, ":")])
	}
}

// open returns the devices of a namespace, with a sysfs of its own.
func open(t *testing.T, name string) *hw.Host {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	other, err := netns.GetFromName(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := netns.Set(other); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(self); err != nil {
			t.Fatal(err)
		}
	}()
	sys := filepath.Join(t.TempDir(), "sys")
	Sh(t, "mkdir "+sys+" && mount -t sysfs sysfs "+sys)
	t.Cleanup(func() { Sh(t, "umount "+sys) })
	k, err := rtnl.Open(sys, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	h, err := hw.Open(hw.Config{Sys: k.Sysfs(), Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// sh runs a command line in the namespace.
func (h host) sh(t *testing.T, line string) string {
	t.Helper()
	return Run(t, "ip", "netns", "exec", h.name, "sh", "-c", line)
}

// bird starts BIRD.
func (h host) bird(t *testing.T, conf string) {
	t.Helper()
	if err := os.WriteFile(h.dir+"/conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	h.sh(t, "bird -c "+h.dir+"/conf -s "+h.dir+"/sock -P "+h.dir+"/pid")
	t.Cleanup(func() { Sh(t, "kill $(cat "+h.dir+"/pid)") })
}

// frr starts FRR. Its daemons want a group that its package creates.
func (h *host) frr(t *testing.T, conf string) {
	t.Helper()
	h.proto = "bgp"
	if err := os.WriteFile(h.dir+"/frr.conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Try("getent", "group", "frrvty"); err != nil {
		Sh(t, "(cat /etc/group; echo frrvty:x:0:) >"+h.dir+"/group && mount --bind "+h.dir+"/group /etc/group")
		t.Cleanup(func() { Sh(t, "umount /etc/group") })
	}
	for _, daemon := range []string{"zebra", "bgpd"} {
		// Each reads the lines that it knows; with the package, vtysh sends each its own.
		h.sh(t, "cd "+h.dir+" && "+daemon+" -d -u root -g root -f $PWD/frr.conf -i $PWD/"+daemon+" -z $PWD/zserv --vty_socket $PWD -P 0 --log file:$PWD/log 2>&1")
		t.Cleanup(func() {
			Sh(t, "kill $(cat "+h.dir+"/"+daemon+")")
			if t.Failed() && daemon == "zebra" {
				t.Log(Sh(t, "grep -v 'No such command' "+h.dir+"/log"))
			}
		})
	}
}

// announce announces destinations on the host's device, and withdraw takes them back.
func (h host) announce(t *testing.T, all ...string) {
	t.Helper()
	for _, dst := range all {
		if err := h.host.Announce(h.e0, netip.MustParsePrefix(dst)); err != nil {
			t.Fatal(err)
		}
	}
}

func (h host) withdraw(t *testing.T, all ...string) {
	t.Helper()
	routes, err := h.host.Announced()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		for _, dst := range all {
			if r.Dst != dst {
				continue
			}
			if err := h.host.Withdraw(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wantRoutes waits until the destinations that a host has from its daemon are these.
func (h host) wantRoutes(t *testing.T, bound time.Duration, want string) {
	t.Helper()
	began := time.Now()
	Within(t, bound, func() string {
		got := h.sh(t, "(ip route show proto "+h.proto+"; ip -6 route show proto "+h.proto+") | awk '{print $1}' | paste -sd' '")
		if got != want {
			return h.name + " has routes to " + got + ", want " + want
		}
		return ""
	})
	t.Logf("%s has %q after %s", h.name, want, time.Since(began).Round(time.Millisecond))
}
