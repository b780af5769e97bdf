//go:build lab

package lab

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// A segment is a DHCP server at the other end of the NIC's wire: BusyBox's, in a namespace with the second NIC. Its leases last for ten
// seconds.
type segment struct{ dir string }

// newSegment gives the server the addresses 10.8.0.50 to 59, on device, which is the second NIC or a VLAN device on it.
func newSegment(t *testing.T, device string) segment {
	t.Helper()
	s := segment{t.TempDir()}
	Sh(t, "ip -n segment addr add 10.8.0.1/24 dev "+device)
	conf := filepath.Join(s.dir, "udhcpd.conf")
	text := "start 10.8.0.50\nend 10.8.0.59\ninterface " + device + "\nlease_file " + s.dir + "/leases\npidfile " + s.dir + "/pid\nmin_lease 1\n" +
		"option subnet 255.255.255.0\noption router 10.8.0.1\noption lease 10\n"
	for file, text := range map[string]string{conf: text, s.dir + "/leases": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("ip", "netns", "exec", "segment", "busybox", "udhcpd", "-f", conf)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it ends with the test
		_ = cmd.Wait()
		Sh(t, "ip -n segment addr del 10.8.0.1/24 dev "+device)
	})
	Within(t, 10*time.Second, func() string {
		if _, err := Try("sh", "-c", "ip netns exec segment ss -Hlun 'sport = :67' | grep -q ."); err != nil {
			return "the DHCP server does not listen"
		}
		return ""
	})
	return s
}

// wantLease waits until the server has a lease of an address, or has none.
func (s segment) wantLease(t *testing.T, address string, want bool) {
	t.Helper()
	lease := regexp.MustCompile(`(?m) ` + regexp.QuoteMeta(address) + ` .*[0-9:]{8}\s*$`)
	Within(t, 10*time.Second, func() string {
		Sh(t, "kill -USR1 $(cat "+s.dir+"/pid)") // it writes its file
		if leases := Sh(t, "busybox dumpleases -r -f "+s.dir+"/leases"); lease.MatchString(leases) != want {
			return "of " + address + " the server has\n" + leases
		}
		return ""
	})
}

// TestDHCPOfVFs: a container's VF gets its address from the DHCP server on the NIC's wire, untagged and in a VLAN. The lease is renewed, also
// by a plugin that was killed, and released with the container.
func TestDHCPOfVFs(t *testing.T) {
	for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "DHCP=true"}, {"enable", Plugin}} {
		Docker(t, append([]string{"plugin"}, args...)...)
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "DHCP=false"}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
	})
	Sh(t, "ip netns add segment; ip link set "+another+" netns segment; ip -n segment link set "+another+" up; "+
		"ip -n segment link add "+another+".100 link "+another+" type vlan id 100; ip -n segment link set "+another+".100 up; "+
		"ip link set "+pf+" up; ip addr add 10.8.0.5/24 dev "+pf+"; ip link add "+pf+".100 link "+pf+" type vlan id 100; ip link set "+pf+".100 up")
	t.Cleanup(func() {
		Sh(t, "ip link del "+pf+".100; ip addr del 10.8.0.5/24 dev "+pf+"; ip link set "+pf+" down; "+
			"ip -n segment link set "+another+" down; ip -n segment link set "+another+" netns 1; ip netns del segment")
	})
	for _, vlan := range []string{"0", "100"} {
		t.Run("vlan "+vlan, func(t *testing.T) { dhcpOfVFs(t, vlan) })
	}
}

func dhcpOfVFs(t *testing.T, vlan string) {
	mine, servers := pf, another
	if vlan != "0" {
		mine, servers = pf+"."+vlan, another+"."+vlan
		Sh(t, "ip addr del 10.8.0.5/24 dev "+pf+"; ip addr add 10.8.0.5/24 dev "+mine)
		t.Cleanup(func() { Sh(t, "ip addr del 10.8.0.5/24 dev "+mine+"; ip addr add 10.8.0.5/24 dev "+pf) })
	}
	server := newSegment(t, servers)
	asBefore(t)
	sriov(t, "leased", "10.8.0.0/24", "-o", "numvfs=2", "-o", "vlan="+vlan, "--ipam-opt", "dhcp=yes", "--ipam-opt", "netdevice="+mine)
	Container(t, "c1", "--net", "leased")
	Container(t, "c2", "--net", "leased")
	first, second := Address(t, "c1", "leased"), Address(t, "c2", "leased")
	for _, a := range []string{first, second} {
		if got := netip.MustParseAddr(a); got.Less(netip.MustParseAddr("10.8.0.50")) || netip.MustParseAddr("10.8.0.59").Less(got) || first == second {
			t.Errorf("the containers have %s and %s", first, second)
		}
		server.wantLease(t, a, true)
	}
	Reaches(t, "c1", "10.8.0.1", 10*time.Second)
	Reaches(t, "c2", first, 10*time.Second)
	if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "default via 10.8.0.1") {
		t.Errorf("routes of c1: %s", got)
	}
	Sh(t, "kill -9 $(pidof driver)")
	began := time.Now()
	Within(t, time.Minute, func() string { // more than a lease lasts
		if time.Since(began) < 15*time.Second {
			return "waiting for the first leases to end"
		}
		return ""
	})
	server.wantLease(t, first, true)
	server.wantLease(t, second, true)
	Reaches(t, "c1", "10.8.0.1", 10*time.Second)
	Docker(t, "rm", "-f", "c1")
	server.wantLease(t, first, false)
	server.wantLease(t, second, true)
	Container(t, "c3", "--net", "leased")
	Reaches(t, "c3", second, 10*time.Second)
}
