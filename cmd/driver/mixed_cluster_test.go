//go:build cluster

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// oldRelease is the commit of the release before.
const oldRelease = "96a386d0aba32415e9ba13093f697fc4b577ec7e"

// buildOld builds the plugin of the release before from the repository's history, once, and returns its path.
func buildOld(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(root, ".cache/test/driver-"+oldRelease)
	if _, err := os.Stat(binary); !errors.Is(err, fs.ErrNotExist) {
		return binary
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "source.tar")
	for _, args := range [][]string{
		{"git", "-C", root, "archive", "-o", archive, oldRelease},
		{"tar", "-x", "-f", archive, "-C", dir},
		{"go", "build", "-C", dir, "-o", filepath.Join(dir, "driver"), "./cmd/driver"},
		{"mkdir", "-p", filepath.Dir(binary)},
		{"mv", filepath.Join(dir, "driver"), binary},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("the release before is built from commit %.7s, which a shallow clone lacks (git fetch --unshallow): %v\n%s\n%s",
				oldRelease, args, err, out)
		}
	}
	return binary
}

// mixedCluster is an etcd that nodes of two releases use.
type mixedCluster struct {
	*testing.T
	etcd    *etcdtest.Cluster
	old     string // the binary of the release before
	engines *engines
}

// node starts a node with a binary, "" for this release, which creates or joins the pool.
func (m *mixedCluster) node(binary string, number int) *node {
	n := newPlugin(m.T, m.etcd, binary, number)
	n.env = append(n.env, "HANDLER_TIMEOUT=10s") // the release before needs 5 s to find out that etcd is away
	n.begin(`{"pool":"lan","prefetch":"2"}`)
	return n
}

// change restarts a node with another binary.
func (m *mixedCluster) change(n *node, binary string) {
	n.stop()
	n.binary = binary
	n.start()
	n.settle()
}

// storm has all nodes start and stop containers at once.
func (m *mixedCluster) storm(nodes ...*node) {
	m.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			for i := range 12 {
				call := m.engines.log.Now()
				if addr, ok := n.ask(); ok {
					m.engines.gave(n.number, addr, call)
				} else if m.Failed() {
					return
				}
				if has := m.engines.of(n.number); i%3 == 2 && len(has) > 0 {
					m.engines.end(n, has[0])
				}
			}
		})
	}
	wg.Wait()
	if len(m.engines.all()) == 0 {
		m.Error("no node gave an address")
	}
}

// keys lists the keys of pools in etcd.
func (m *mixedCluster) keys(prefix string) (keys []string) {
	m.Helper()
	resp, err := m.etcd.Client(m.T).Get(m.Context(), "/unique/r/"+prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		m.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// TestMixedReleases: nodes of this release and of the one before share a pool on one etcd, as in a rolling upgrade, and each node becomes one of
// the other release meanwhile. No address is given twice, nothing is left in the end, and an operator can end it.
func TestMixedReleases(t *testing.T) {
	m := &mixedCluster{T: t, etcd: etcdtest.Start(t, 1), old: buildOld(t), engines: newEngines()}
	a, b := m.node(m.old, 0), m.node(m.old, 1)
	m.storm(a, b)
	c := m.node("", 2)
	m.storm(a, b, c)
	if owners := m.keys("ipam/pool/"); len(owners) != 1 {
		t.Fatalf("pools: %q, want the one that the old node created", owners)
	}
	m.change(b, "") // upgraded
	m.storm(a, b, c)
	m.change(c, m.old) // goes back
	m.storm(a, b, c)
	m.outage(a)
	m.storm(a, b, c)
	m.change(c, "")
	for _, n := range []*node{a, b, c} {
		for _, addr := range m.engines.of(n.number) {
			m.engines.end(n, addr)
		}
		n.leave()
	}
	if wrong := m.engines.log.Check(); len(wrong) > 0 {
		t.Error(strings.Join(wrong, "\n"))
	}
	if left := m.keys("ipam/"); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	m.finalize(a)
}

// awaitPrefetched waits until so many addresses are prefetched by all nodes.
func awaitPrefetched(t *testing.T, c *etcdtest.Cluster, want int) {
	t.Helper()
	etcd := c.Client(t)
	err := retry.Poll(t.Context(), 100*time.Millisecond, 2*time.Minute, func() (bool, error) {
		resp, err := etcd.Get(t.Context(), "/unique/r/ipam/lease/", clientv3.WithPrefix())
		if err != nil {
			return false, err
		}
		ahead := 0
		for _, kv := range resp.Kvs {
			ahead += strings.Count(string(kv.Value), `"kind":"reserve"`)
		}
		return ahead == want, nil
	})
	if err != nil {
		t.Errorf("%d prefetched addresses: %v", want, err)
	}
}

// outage has an old node give prefetched addresses while etcd is away, and its successor of this release write them down.
func (m *mixedCluster) outage(n *node) {
	m.Helper()
	awaitPrefetched(m.T, m.etcd, 6) // each of three nodes has two
	m.etcd.Members[0].Cut()
	call := m.engines.log.Now()
	answer := n.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, n.pool)) // the first may find out too late that etcd is away
	addr, _, _ := strings.Cut(answer["Address"], "/")
	m.engines.gave(n.number, addr, call)
	if has := m.engines.of(n.number); len(has) > 1 {
		m.engines.end(n, has[0])
	}
	n.stop()
	if owed, err := n.owed(); err != nil || owed < 1 {
		m.Errorf("the old node has %d ops in its outbox, %v", owed, err)
	}
	m.etcd.Members[0].Heal()
	n.binary = ""
	n.start()
	n.calmDown()
}

// finalize ends the use of the etcd by old nodes.
func (m *mixedCluster) finalize(n *node) {
	m.Helper()
	setting := "etcd://" + m.etcd.Endpoints()[0] + "?prefix=/unique"
	if list := mustOperate(m.T, m.TempDir(), setting, "nodes"); !strings.Contains(list, "schema 1: nodes of an older version") {
		m.Errorf("nodes:\n%s", list)
	}
	if out := mustOperate(m.T, m.TempDir(), setting, "finalize"); out != "finalize: schema 2, was 1\n" {
		m.Errorf("finalize: %s", out)
	}
	if list := mustOperate(m.T, m.TempDir(), setting, "nodes"); strings.Contains(list, "schema") {
		m.Errorf("nodes:\n%s", list)
	}
	m.change(n, m.old)
	answer, ok := n.call("IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"10.0.0.0/25","Options":{"pool":"lan"}}`)
	if ok || !strings.Contains(answer["Err"], "it has schema 2, this version knows 1; upgrade the plugin on this node") {
		m.Errorf("an old node is answered %v", answer)
	}
}

// TestMixedJoins: while an old node makes and removes a shared pool, a node of this release joins and leaves it. A join that was answered has a
// pool, and in the end no pool is left.
func TestMixedJoins(t *testing.T) {
	m := &mixedCluster{T: t, etcd: etcdtest.Start(t, 1), old: buildOld(t), engines: newEngines()}
	request := `{"AddressSpace":"passthrough-local","Pool":"10.7.0.0/25","Options":{"pool":"race"}}`
	nodes := []*node{m.node(m.old, 0), m.node("", 1), m.node(m.old, 2)}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			for round := range 60 {
				pool := n.until("IpamDriver.RequestPool", request)["PoolID"]
				answer, ok := n.call("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))
				if !ok && strings.Contains(answer["Err"], "no such pool") {
					t.Errorf("node %d, round %d: the pool that it has joined: %v", n.number, round, answer)
				}
				n.until("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":%q}`, pool))
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		n.leave()
	}
	if left := m.keys("ipam/"); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
