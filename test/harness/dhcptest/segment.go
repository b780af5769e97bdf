// Package dhcptest runs real DHCP servers (dnsmasq and Kea) for tests, each on a segment of its own: a veth pair between the test's network
// namespace, which is the host's, and another one.
package dhcptest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// What a segment has: the device of the host and its address, and those of the server.
const (
	Device       = "lan0"
	Host         = "10.8.0.1"
	Address      = "10.8.0.2"
	Subnet       = "10.8.0.0/24"
	Router       = "10.8.0.254"
	ServerDevice = "srv0"
)

// Main runs the tests of a package in a network namespace of their own.
func Main(m *testing.M) {
	if sandbox.Inside() {
		os.Exit(m.Run())
	}
	code, err := sandbox.RunInside(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// A Segment is a segment with a namespace for a server. It ends with its test.
type Segment struct {
	t    *testing.T
	dir  string
	far  *sandbox.Sandbox
	runs int
}

// New makes one.
func New(t *testing.T) *Segment {
	t.Helper()
	far, err := sandbox.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.End)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Device
	near, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(near.Close)
	err = near.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: ServerDevice, PeerNamespace: netlink.NsFd(far.FD)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.LinkDel(&netlink.Dummy{LinkAttrs: attrs}) }) // it ends with the namespace otherwise
	setUp(t, near, Device, Host+"/24")
	setUp(t, far.NL, ServerDevice, Address+"/24")
	waitRunning(t, near, Device)
	waitRunning(t, far.NL, ServerDevice)
	return &Segment{t: t, dir: t.TempDir(), far: far}
}

// setUp gives a device an address and sets it up.
func setUp(t *testing.T, nl *netlink.Handle, name, address string) {
	t.Helper()
	l, err := nl.LinkByName(name)
	if err == nil {
		err = nl.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	addAddress(t, nl, l, address)
}

// waitRunning waits until a device has the flag IFF_RUNNING, which a worker of the kernel sets (Linux 6.12, net/core/link_watch.c). Kea
// opens no socket on a device that does not have it, and starts without one.
func waitRunning(t *testing.T, nl *netlink.Handle, name string) {
	t.Helper()
	err := retry.Poll(t.Context(), 10*time.Millisecond, time.Minute, func() (bool, error) {
		l, err := nl.LinkByName(name)
		return err == nil && l.Attrs().RawFlags&unix.IFF_RUNNING != 0, err
	})
	if err != nil {
		t.Fatalf("%s is not running: %v", name, err)
	}
}

func addAddress(t *testing.T, nl *netlink.Handle, l netlink.Link, address string) {
	t.Helper()
	ip, subnet, err := net.ParseCIDR(address)
	if err == nil {
		err = nl.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: subnet.Mask}})
	}
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
}

// Move gives the server's device another address in place of its own.
func (s *Segment) Move(from, to string) {
	s.t.Helper()
	l, err := s.far.NL.LinkByName(ServerDevice)
	if err != nil {
		s.t.Fatal(err)
	}
	ip := net.ParseIP(from)
	if err := s.far.NL.AddrDel(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}); err != nil {
		s.t.Fatal(err)
	}
	addAddress(s.t, s.far.NL, l, to+"/24")
}

// A Server is a running server.
type Server struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    string // file
	leases string // file
}

// Dnsmasq starts dnsmasq with the addresses from 10.8.0.50 to 10.8.0.52 and further options.
func (s *Segment) Dnsmasq(options ...string) *Server {
	s.t.Helper()
	srv := &Server{t: s.t, log: s.logFile(), leases: filepath.Join(s.dir, "dnsmasq.leases")}
	args := append([]string{"-C", "/dev/null", "-k", "--port=0", "--user=root", "--pid-file", "-i", ServerDevice, "--bind-interfaces",
		"--dhcp-range=10.8.0.50,10.8.0.52,120", "--dhcp-option=option:router," + Router, "--dhcp-leasefile=" + srv.leases,
		"--log-facility=" + srv.log, "--log-dhcp"}, options...)
	s.start(srv, "IP range", "dnsmasq", args...)
	return srv
}

// keaConfig has the same addresses; the lease time in seconds and the file of leases are to be filled in.
const keaConfig = `{"Dhcp4": {"interfaces-config": {"interfaces": ["` + ServerDevice + `"]}, "valid-lifetime": %d, "renew-timer": %d, "rebind-timer": %d,
"lease-database": {"type": "memfile", "name": %q}, "subnet4": [{"id": 1, "subnet": "` + Subnet + `",
"pools": [{"pool": "10.8.0.50-10.8.0.52"}], "option-data": [{"name": "routers", "data": "` + Router + `"}]}],
"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": %q, "flush": true}]}]}}`

// Kea starts Kea with leases that last so many seconds, and are renewed after a third and rebound after two thirds of that.
func (s *Segment) Kea(seconds int) *Server {
	s.t.Helper()
	srv := &Server{t: s.t, log: s.logFile(), leases: filepath.Join(s.dir, "kea.csv")}
	config := filepath.Join(s.dir, "kea.json")
	text := fmt.Sprintf(keaConfig, seconds, seconds/3, seconds*2/3, srv.leases, srv.log)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.start(srv, "DHCP4_STARTED", "kea-dhcp4", "-c", config)
	return srv
}

func (s *Segment) logFile() string {
	s.runs++
	return filepath.Join(s.dir, fmt.Sprintf("log.%d", s.runs))
}

// start starts a program in the server's namespace, and waits until its log says that it is up.
func (s *Segment) start(srv *Server, up, program string, args ...string) {
	s.t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		s.t.Fatalf("%v: make test-kernel installs it", err)
	}
	srv.cmd = exec.Command("nsenter", append([]string{"--net=/proc/self/fd/3", program}, args...)...)
	srv.cmd.ExtraFiles = []*os.File{os.NewFile(dup(s.t, int(s.far.FD)), "namespace")}
	srv.cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+s.dir, "KEA_LOCKFILE_DIR="+s.dir)
	srv.cmd.Stderr = os.Stderr
	srv.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	stopped := make(chan struct{})
	go func() { // the thread lives as long as the server, see Pdeathsig
		runtime.LockOSThread()
		started <- srv.cmd.Start()
		<-stopped
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		srv.Stop()
		close(stopped)
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", program, srv.Log())
		}
	})
	srv.WaitLog(up)
}

func dup(t *testing.T, fd int) uintptr {
	t.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(other)
}

// Stop ends the server.
func (srv *Server) Stop() {
	if srv.cmd.ProcessState == nil {
		_ = srv.cmd.Process.Kill() // it may have ended by itself
		_ = srv.cmd.Wait()         // says that it was killed
	}
}

// Log returns the server's log, and Leases its file of leases.
func (srv *Server) Log() string    { return read(srv.log) }
func (srv *Server) Leases() string { return read(srv.leases) }

func read(file string) string {
	text, _ := os.ReadFile(file) // "" before it exists
	return string(text)
}

// WaitLog waits until the log has a text.
func (srv *Server) WaitLog(text string) {
	srv.t.Helper()
	srv.Wait(text, func() bool { return strings.Contains(srv.Log(), text) })
}

// Wait waits for a condition.
func (srv *Server) Wait(what string, cond func() bool) {
	srv.t.Helper()
	err := retry.Poll(srv.t.Context(), 50*time.Millisecond, time.Minute, func() (bool, error) { return cond(), nil })
	if err != nil {
		srv.t.Fatalf("%s: %v\nlog:\n%s\nleases:\n%s", what, err, srv.Log(), srv.Leases())
	}
}
