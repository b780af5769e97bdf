package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
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

// scheme is what the members' URLs begin with.
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
	own   string // HOST:PORT where it answers
	relay *relay // of its clients
	peers *relay // of the other members
	cmd   *exec.Cmd
	out   bytes.Buffer
}

// Server builds the server, once, and answers where it is: a static binary, which runs on other machines, too.
func Server() (string, error) { return server() }

// server is Server.
var server = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/mellanox/passthrough").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	dir := strings.TrimSpace(string(root))
	binary := filepath.Join(dir, ".cache/test/etcd")
	build := exec.Command("go", "build", "-C", filepath.Join(dir, "test/harness/etcdserver"), "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return binary, nil
})

// Start starts a cluster of n members, with more arguments for each of them, and waits until it answers. It ends with the
// test.
func Start(t *testing.T, n int, args ...string) *Cluster {
	t.Helper()
	return start(t, n, nil, args...)
}

// start is Start; secure is how clients speak to the members, nil for in the clear.
func start(t *testing.T, n int, secure *tls.Config, args ...string) *Cluster {
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
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, peers[i].addr))
	}
	c := &Cluster{t: t, secure: secure}
	for i := range n {
		client, peer := c.scheme()+ports[2*i], "http://"+ports[2*i+1]
		m := &Member{t: t, dir: t.TempDir(), own: ports[2*i], relay: newRelay(t, ports[2*i]), peers: peers[i]}
		m.args = append([]string{binary, "--name", fmt.Sprintf("m%d", i), "--data-dir", m.dir,
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", "http://" + peers[i].addr,
			"--initial-cluster", strings.Join(initial, ","), "--log-level", "error"}, args...)
		m.Start()
		t.Cleanup(m.Kill)
		c.Members = append(c.Members, m)
	}
	c.Await()
	return c
}

// freePorts are n addresses on which nobody listens.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only now, so that none comes twice
		found = append(found, l.Addr().String())
	}
	return found
}

// Endpoints are where the members answer, by way of their relays.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Endpoint())
	}
	return all
}

// Client is a client of the whole cluster that no cut relay touches.
func (c *Cluster) Client(t *testing.T) *clientv3.Client {
	t.Helper()
	var all []string
	for _, m := range c.Members {
		all = append(all, c.scheme()+m.own)
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
		c.t.Logf("%s says:\n%s", m.own, &m.out)
	}
	c.t.Fatal("etcd does not answer")
}

// Endpoint is where the member answers, by way of its relay.
func (m *Member) Endpoint() string { return m.relay.addr }

// Way is one more way to a member.
type Way struct{ relay *relay }

// Way makes one from the network namespace that the caller's thread is in, which may have no other to the world.
func (m *Member) Way() (Way, error) {
	r, err := listenRelay(m.own)
	return Way{r}, err
}

// Endpoint is where the way begins.
func (w Way) Endpoint() string { return w.relay.addr }

// Cut lets nothing through, either way, while connections stay as they are; Heal ends that.
func (w Way) Cut() { w.relay.set(true, true) }

// Heal is the reverse of Cut. Connections from before are closed.
func (w Way) Heal() { w.relay.set(false, false) }

// End is the end of it and of all its connections.
func (w Way) End() { w.relay.close() }

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

// Kill ends the member as a power cut does. It can be started again.
func (m *Member) Kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	_ = m.cmd.Wait()         // with the signal
}

// Wipe kills the member, takes away all that it knew, and starts it.
func (m *Member) Wipe() {
	m.t.Helper()
	m.Kill()
	if err := os.RemoveAll(filepath.Join(m.dir, "member")); err != nil {
		m.t.Fatal(err)
	}
	m.Start()
}

// Freeze stops all threads of the member, and Thaw lets them go on. It waits until they have stopped: on a busy machine a thread can
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

// Cut lets nothing through between the clients and the member, either way, while connections stay as they are; Heal ends
// that.
func (m *Member) Cut() { m.relay.set(true, true) }

// Mute lets requests through to the member, but no answers.
func (m *Member) Mute() { m.relay.set(false, true) }

// CutPeers loses what the other members have to do with the member over connections that they made.
func (m *Member) CutPeers() { m.peers.set(true, true) }

// HealPeers ends CutPeers.
func (m *Member) HealPeers() { m.peers.set(false, false) }

// CutPeers loses what any member has to do with any other.
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

// Refuse ends the relay: from now on connections are refused.
func (m *Member) Refuse() { m.relay.close() }

// Heal is the reverse of Cut and Mute. Connections from before are closed.
func (m *Member) Heal() { m.relay.set(false, false) }
