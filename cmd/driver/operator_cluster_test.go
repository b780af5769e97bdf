//go:build cluster

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// operator runs the program with arguments, as an operator does beside a plugin with this state directory and store.
func operator(t *testing.T, state, store string, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "driver"
	cmd.Env = append(os.Environ(), "STATE_DIR="+state, "STORE="+store)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustOperate is operator for a command that must succeed.
func mustOperate(t *testing.T, state, store string, args ...string) string {
	t.Helper()
	out, err := operator(t, state, store, args...)
	if err != nil {
		t.Fatalf("driver %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// storeOf returns the setting STORE for a cluster.
func storeOf(c *etcdtest.Cluster) string {
	return "etcd://" + strings.Join(c.Endpoints(), ",") + "?prefix=/unique"
}

// TestForgetCommand: after an operator removed a lost node, its addresses are free for others. If it returns, it gets a new ID.
func TestForgetCommand(t *testing.T) {
	c := etcdtest.Start(t, 1)
	lost, other := newNode(t, c, 0, `{"pool":"lan"}`), newNode(t, c, 1, `{"pool":"lan"}`)
	had, ok := lost.ask()
	if !ok {
		t.Fatal("no address")
	}
	var list string
	seen := regexp.MustCompile(`(?m) 1 +member +\d+s ago$`)
	err := retry.Poll(t.Context(), 100*time.Millisecond, 30*time.Second, func() (bool, error) {
		list = mustOperate(t, t.TempDir(), storeOf(c), "nodes")
		return len(seen.FindAllString(list, -1)) == 2, nil // each node writes that it runs, soon after it has joined
	})
	if err != nil {
		t.Errorf("the nodes were not seen: %v\n%s", err, list)
	}
	if lines := strings.Split(strings.TrimSpace(list), "\n"); len(lines) != 3 {
		t.Fatalf("nodes:\n%s", list)
	}
	lost.end()
	other.end()
	ledger, err := os.ReadFile(filepath.Join(lost.state, ledgerFile))
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`1 ([a-z2-7]{26})`).FindSubmatch(ledger)
	if id == nil {
		t.Fatal("the node's own ledger does not say who it is")
	}
	out, err := operator(t, t.TempDir(), storeOf(c), "forget", string(id[1]))
	if err == nil || !strings.Contains(out, "was seen") || !strings.Contains(out, "or use forget --force") {
		t.Errorf("a node that was seen now: %v, %q", err, out)
	}
	if out := mustOperate(t, t.TempDir(), storeOf(c), "forget", "--force", string(id[1])); out != "forget: 1 pools\n" {
		t.Errorf("forget: %q", out)
	}
	if list := mustOperate(t, t.TempDir(), storeOf(c), "nodes"); !regexp.MustCompile(string(id[1]) + ` .* 0 +lost +unknown\n`).MatchString(list) {
		t.Errorf("nodes:\n%s", list)
	}
	other.start()
	other.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, other.pool, had))
	lost.start()
	answer := lost.until("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, lost.pool, had))
	if len(answer) > 0 {
		t.Errorf("its engine cleans up: %v", answer)
	}
	if _, ok := lost.ask(); ok {
		t.Error("the lost node gives addresses of what it had")
	}
	pool := lost.until("IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"10.0.0.0/25","Options":{"pool":"lan"}}`)
	lost.pool = pool["PoolID"]
	if got, ok := lost.ask(); !ok || got == had {
		t.Errorf("a network of the node that is back has %q, %v", got, ok)
	}
}

// TestMoveToEtcd: a node's pools and addresses are moved from its own ledger into etcd and back, and its networks keep working.
func TestMoveToEtcd(t *testing.T) {
	c := etcdtest.Start(t, 1)
	p := newProcess(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pool := answered(t, p, "IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"10.0.0.0/25"}`)["PoolID"]
	first := answered(t, p, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))["Address"]
	stopped(t, p)
	file := filepath.Join(t.TempDir(), "pools")
	mustOperate(t, p.state, storeBolt, "export", file)
	if out := mustOperate(t, p.state, storeOf(c), "import", file); out != "import: 2 records\n" {
		t.Errorf("import: %q", out)
	}

	n := &node{T: t, socket: tempSocket(t), state: p.state, pool: fmt.Sprint(pool)}
	n.client = client(n.socket)
	n.env = append(os.Environ(), "SOCKET="+n.socket, "STATE_DIR="+n.state, "STORE="+storeOf(c))
	n.start()
	t.Cleanup(n.end)
	second := n.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))["Address"]
	if second == first {
		t.Errorf("%s was given twice", first)
	}
	addr, _, _ := strings.Cut(fmt.Sprint(first), "/")
	n.release(addr)
	n.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, pool, addr))
	n.end()

	back := filepath.Join(t.TempDir(), "pools")
	if out := mustOperate(t, p.state, storeOf(c), "export", back); out != "export: 3 records\n" {
		t.Errorf("export: %q", out)
	}
	fresh := newProcess(t)
	fresh.makeLedger(t)
	if out := mustOperate(t, fresh.state, storeBolt, "import", back); out != "import: 3 records\n" {
		t.Errorf("import: %q", out)
	}
}

// stopped stops a process.
func stopped(t *testing.T, p *process) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, p.out.String())
	}
}

// TestAcceptCommand: a node refuses an older state of etcd, also after a restart, until an operator accepts it.
func TestAcceptCommand(t *testing.T) {
	c := etcdtest.Start(t, 1)
	n := newNode(t, c, 0, `{}`)
	if _, ok := n.ask(); !ok {
		t.Fatal("no address")
	}
	n.stop()
	c.Members[0].Wipe()
	c.Await()
	n.start()
	const request = `{"AddressSpace":"passthrough-local","Pool":"10.1.0.0/24"}`
	await(t, "the plugin", func() bool { _, ok := n.call("IpamDriver.GetCapabilities", ""); return ok })
	answer, ok := n.call("IpamDriver.RequestPool", request)
	if ok || !strings.Contains(answer["Err"], "once that is put right, tell this node with driver accept") {
		t.Errorf("on an older state: %v", answer)
	}
	n.stop()
	mustOperate(t, n.state, storeOf(c), "accept")
	n.start()
	n.until("IpamDriver.RequestPool", request)
}

// TestReleaseWhileEtcdIsAway: while etcd is unavailable containers can be stopped. Their addresses are free when etcd is available again.
func TestReleaseWhileEtcdIsAway(t *testing.T) {
	c := etcdtest.Start(t, 1)
	n, other := newNode(t, c, 0, `{"pool":"lan"}`), newNode(t, c, 1, `{"pool":"lan"}`)
	addr, ok := n.ask()
	if !ok {
		t.Fatal("no address")
	}
	c.Members[0].Kill()
	if answer, ok := n.call("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, n.pool, addr)); !ok {
		t.Errorf("release while etcd is away: %v", answer)
	}
	n.stop()
	n.start()
	c.Members[0].Start()
	c.Await()
	ask := fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, other.pool, addr)
	other.until("IpamDriver.RequestAddress", ask)
}
