package dockertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A DHCPServer is BusyBox's, in the network namespace "segment". Its leases last for ten seconds.
type DHCPServer struct{ dir string }

// StartDHCP starts a server on a device of the namespace, which has the address 10.8.0.1/24, with the addresses from first to last. It ends
// with the test.
func StartDHCP(t testing.TB, device, first, last string) DHCPServer {
	t.Helper()
	s := DHCPServer{t.TempDir()}
	conf := filepath.Join(s.dir, "udhcpd.conf")
	text := "start " + first + "\nend " + last + "\ninterface " + device + "\nlease_file " + s.leases() + "\npidfile " + s.dir + "/pid\n" +
		"auto_time 1\nmin_lease 1\noffer_time 1\noption subnet 255.255.255.0\noption router 10.8.0.1\noption lease 10\n"
	for file, text := range map[string]string{conf: text, s.leases(): ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	StartProgram(t, exec.Command("ip", "netns", "exec", "segment", "busybox", "udhcpd", "-f", conf))
	Within(t, 10*time.Second, func() string {
		if _, err := Try("sh", "-c", "ip netns exec segment ss -Hlun 'sport = :67' | grep -q ."); err != nil {
			return "the DHCP server does not listen"
		}
		return ""
	})
	return s
}

func (s DHCPServer) leases() string { return filepath.Join(s.dir, "leases") }

// expires returns when the server's lease of an address ends, in seconds of Unix time, as its file of the last second has it; 0 if there is
// none. The file is not written at once: it may lack leases, and then mostly cannot be read.
func (s DHCPServer) expires(address string) (at int64, leases string, err error) {
	leases, err = Try("busybox", "dumpleases", "-a", "-d", "-f", s.leases())
	for line := range strings.Lines(leases) {
		if fields := strings.Fields(line); slices.Contains(fields, address) {
			at, _ = strconv.ParseInt(fields[len(fields)-1], 10, 64) // "expired" is no number
		}
	}
	return at, leases, err
}

// WantLease waits until the server has a lease of an address that ends after a time; with the zero time, until it has none. Two reads in a row
// have to show that.
func (s DHCPServer) WantLease(t testing.TB, address string, after time.Time) {
	t.Helper()
	shown := 0
	Within(t, time.Minute, func() string {
		at, leases, err := s.expires(address)
		shown++
		if err != nil || after.IsZero() != (at == 0) || !after.IsZero() && at <= after.Unix() {
			shown = 0
		}
		if shown < 2 {
			return fmt.Sprintf("of %s the server has\n%s, %v", address, leases, err)
		}
		return ""
	})
}
