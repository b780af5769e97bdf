package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
)

// Cluster is an etcd of one or more members.
type Cluster struct {
	t       *testing.T
	secure  *tls.Config
	Members []*Member
}

// scheme returns the scheme of the members' URLs.
func (c *Cluster) scheme() string {
	if c.secure == nil {
		return "http://"
	}
	return "https://"
}

// Member is one server.
type Member struct {
	t     *testing.T
	args  []string
	dir   string
	own   string // HOST:PORT at which it listens
	relay *relay // of its clients
	peers *relay // of the other members
	cmd   *exec.Cmd
	out   bytes.Buffer
}

// Server builds the server once and returns its path. The binary is static, so it runs on other machines too.
func Server() (string, error) { return server() }

// server implements Server. Tests of several packages come here at a time: the first one builds, and for the others go build leaves the
// binary, which runs by then, as it is.
var server = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/mellanox/passthrough").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	dir := strings.TrimSpace(string(root))
	binary := filepath.Join(dir, ".cache/test/etcd")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", err
	}
	turn, err := os.OpenFile(binary+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer turn.Close()
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", turn.Name(), err)
	}
	build := exec.Command("go", "build", "-C", filepath.Join(dir, "test/harness/etcdserver"), "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return binary, nil
})

// Start starts a cluster of n members with additional arguments and waits until it answers. The cluster stops when the test ends.
func Start(t *testing.T, n int, args ...string) *Cluster {
	t.Helper()
	return start(t, n, nil, true, args...)
}

// StartDirect is Start without relays between the members, for measurements. [Cluster.Direct] has the addresses for clients.
func StartDirect(t *testing.T, n int, args ...string) *Cluster {
	t.Helper()
	return start(t, n, nil, false, args...)
}

// start is Start; secure is the TLS configuration of clients, nil for no TLS. relayed is false for members that reach each other directly.
func start(t *testing.T, n int, secure *tls.Config, relayed bool, args ...string) *Cluster {
	t.Helper()
	binary, err := server()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2*n)
	var initial []string
	var peers []*relay
	for i := range n {
		peers = append(peers, newRelay(t, ports[2*i+1]))
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, peerAddr(peers[i], relayed)))
	}
	c := &Cluster{t: t, secure: secure}
	for i := range n {
		client, peer := c.scheme()+ports[2*i], "http://"+ports[2*i+1]
		m := &Member{t: t, dir: t.TempDir(), own: ports[2*i], relay: newRelay(t, ports[2*i]), peers: peers[i]}
		m.args = append([]string{binary, "--name", fmt.Sprintf("m%d", i), "--data-dir", m.dir,
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", "http://" + peerAddr(peers[i], relayed),
			"--initial-cluster", strings.Join(initial, ","), "--log-level", "error"}, args...)
		m.Start()
		t.Cleanup(m.Kill)
		c.Members = append(c.Members, m)
	}
	c.Await()
	return c
}

// peerAddr returns the address at which the other members reach the member behind r.
func peerAddr(r *relay, relayed bool) string {
	if relayed {
		return r.addr
	}
	return r.member
}

// ownAddress returns an address of the loopback device that no other process's clusters use, so that tests of several packages can run at a
// time: a port that was free is used only after a moment. A process has a number below 1<<22 (proc(5), pid_max).
func ownAddress() net.IP {
	pid := os.Getpid()
	return net.IPv4(127, byte(64+pid>>16), byte(pid>>8), byte(pid))
}

// freePorts returns n free addresses of the loopback device. Their ports are below those that the kernel gives to clients (32768 and above,
// ip-sysctl.rst, ip_local_port_range): a client that dials one of these while its member is down can be given that very port. Then it is
// connected to itself, and the member cannot listen when it comes back.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	const first, above = 10000, 32768
	var found []string
	for len(found) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", ownAddress(), first+rand.IntN(above-first)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after the loop, so that no port is returned twice
		found = append(found, l.Addr().String())
	}
	return found
}

// Endpoints returns the addresses of the members' relays.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Endpoint())
	}
	return all
}

// Direct returns the addresses at which the members listen, without relays.
func (c *Cluster) Direct() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.own)
	}
	return all
}

// Client returns a client of all members that bypasses the relays.
func (c *Cluster) Client(t *testing.T) *clientv3.Client {
	t.Helper()
	var all []string
	for _, addr := range c.Direct() {
		all = append(all, c.scheme()+addr)
	}
	const silent = 6 // above zapcore.FatalLevel
	logger, err := logutil.CreateDefaultZapLogger(silent)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: all, TLS: c.secure, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Await waits until the cluster has a leader.
func (c *Cluster) Await() {
	c.t.Helper()
	client := c.Client(c.t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Get(try, "up")
		cancel()
		if err == nil {
			return
		}
	}
	for _, m := range c.Members {
		c.t.Logf("output of %s:\n%s", m.own, &m.out)
	}
	c.t.Fatal("etcd does not answer")
}

// Leader returns the member that leads; nil if none says so, as during an election.
func (c *Cluster) Leader() *Member {
	client := c.Client(c.t)
	for _, m := range c.Members {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		status, err := client.Status(ctx, c.scheme()+m.own)
		cancel()
		if err == nil && status.Leader == status.Header.MemberId {
			return m
		}
	}
	return nil
}

// Endpoint returns the address of the member's relay.
func (m *Member) Endpoint() string { return m.relay.addr }

// Proxy is an additional relay to a member.
type Proxy struct{ relay *relay }

// Proxy starts a relay to the member that listens in the network namespace of the calling thread.
func (m *Member) Proxy() (Proxy, error) {
	r, err := listenRelay(m.own)
	return Proxy{r}, err
}

// Endpoint returns the address at which the relay listens.
func (p Proxy) Endpoint() string { return p.relay.addr }

// Cut drops all data in both directions and leaves connections open, until Heal.
func (p Proxy) Cut() { p.relay.set(true, true) }

// Heal is the reverse of Cut. Connections from before are closed.
func (p Proxy) Heal() { p.relay.set(false, false) }

// Close closes the relay and all its connections.
func (p Proxy) Close() { p.relay.close() }

// Start starts the member, the first time or again.
func (m *Member) Start() {
	m.t.Helper()
	m.cmd = exec.Command(m.args[0], m.args[1:]...)
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
}

// Kill kills the member by SIGKILL. Start starts it again.
func (m *Member) Kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	_ = m.cmd.Wait()         // its error is the signal
}

// Wipe kills the member, deletes its data and starts it.
func (m *Member) Wipe() {
	m.t.Helper()
	m.Kill()
	if err := os.RemoveAll(filepath.Join(m.dir, "member")); err != nil {
		m.t.Fatal(err)
	}
	m.Start()
}

// Freeze stops all threads of the member by SIGSTOP until Thaw. It waits until they have stopped: on a busy machine a thread can
// still answer a request after the signal was sent.
func (m *Member) Freeze() {
	m.signal(syscall.SIGSTOP)
	err := retry.Poll(m.t.Context(), time.Millisecond, 10*time.Second, func() (bool, error) { return stopped(m.cmd.Process.Pid) })
	if err != nil {
		m.t.Error("freeze: ", err)
	}
}

// stopped reports whether all threads of a process are stopped: their state, after their name in parentheses, is T (proc(5)).
func stopped(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("process %d has no threads: %w", pid, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			return false, err
		}
		if !bytes.Contains(stat, []byte(") T ")) {
			return false, nil
		}
	}
	return true, nil
}

// Thaw is the reverse of Freeze.
func (m *Member) Thaw() { m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) {
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Error(err)
	}
}

// Cut drops all data between the clients and the member in both directions and leaves connections open, until Heal.
func (m *Member) Cut() { m.relay.set(true, true) }

// Mute passes requests to the member and drops its answers, until Heal.
func (m *Member) Mute() { m.relay.set(false, true) }

// CutPeers drops all data on the connections that other members opened to the member.
func (m *Member) CutPeers() { m.peers.set(true, true) }

// HealPeers ends CutPeers.
func (m *Member) HealPeers() { m.peers.set(false, false) }

// CutPeers drops all data between the members.
func (c *Cluster) CutPeers() {
	for _, m := range c.Members {
		m.CutPeers()
	}
}

// HealPeers ends CutPeers.
func (c *Cluster) HealPeers() {
	for _, m := range c.Members {
		m.HealPeers()
	}
}

// Refuse closes the relay: connections are refused from now on.
func (m *Member) Refuse() { m.relay.close() }

// Heal is the reverse of Cut and Mute. Connections from before are closed.
func (m *Member) Heal() { m.relay.set(false, false) }
