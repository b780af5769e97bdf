//go:build cluster

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
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
	if nodes, _, _ := strings.Cut(list, "\n\n"); strings.Count(nodes, "\n") != 2 { // the head and two nodes; then the etcd members
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

// etcdRequests counts the requests that etcd has answered, by method.
func etcdRequests(t *testing.T, c *etcdtest.Cluster) map[string]int {
	t.Helper()
	resp, err := http.Get("http://" + c.Direct()[0] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^grpc_server_handled_total{grpc_code="OK",grpc_method="(Range|Txn)".*} (\d+)$`).FindAllSubmatch(text, -1) {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		counts[string(m[1])] += n
	}
	return counts
}

// TestImportBatches: a pool of 10,000 addresses is imported with some dozens of requests to etcd, and again with no write; the pool of another
// node with the same name is refused, and nothing of that node's is written.
func TestImportBatches(t *testing.T) {
	c := etcdtest.Start(t, 1)
	files := map[string]string{}
	for node, leases := range map[string]int{"a": 10_000, "b": 10} {
		s := store.NewMemory()
		id, share := strings.Repeat(node, 32), strings.Repeat("0", 32)
		ops := []store.Op{store.Put("ipam/pool/"+id, []byte(`{"v":1,"subnet":"10.0.0.0/16","options":{"pool":"lan"}}`)),
			store.Put("ipam/name/4/lan", []byte(id)), store.Put("ipam/share/"+id+"/"+share, []byte(`{"v":1}`))}
		for i := range leases {
			ops = append(ops, store.Put(fmt.Sprintf("ipam/lease/%s/10.0.%d.%d", id, i/250, i%250+1),
				fmt.Appendf(nil, `{"v":1,"kind":"chosen","name":"container%d","holders":[%q]}`, i, share)))
		}
		if _, err := s.Txn(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
		files[node] = filepath.Join(t.TempDir(), "pools")
		if _, err := exportFile(t.Context(), s, files[node]); err != nil {
			t.Fatal(err)
		}
	}
	before := etcdRequests(t, c)
	if out := mustOperate(t, t.TempDir(), storeOf(c), "import", files["a"]); out != "import: 10003 records\n" {
		t.Errorf("import: %q", out)
	}
	after := etcdRequests(t, c)
	t.Logf("first import: %d reads, %d transactions", after["Range"]-before["Range"], after["Txn"]-before["Txn"])
	if reads, txns := after["Range"]-before["Range"], after["Txn"]-before["Txn"]; reads > 20 || txns > 12 || txns < 2 {
		t.Errorf("%d reads and %d transactions", reads, txns)
	}
	mustOperate(t, t.TempDir(), storeOf(c), "import", files["a"])
	again := etcdRequests(t, c)
	if reads, txns := again["Range"]-after["Range"], again["Txn"]-after["Txn"]; reads > 40 || txns > 3 {
		t.Errorf("again: %d reads and %d transactions", reads, txns)
	}
	out, err := operator(t, t.TempDir(), storeOf(c), "import", files["b"])
	if err == nil || !strings.Contains(out, `another pool with the name "lan", of subnet 10.0.0.0/16`) {
		t.Errorf("another node's pool with that name: %v, %q", err, out)
	}
	back := filepath.Join(t.TempDir(), "pools")
	if out := mustOperate(t, t.TempDir(), storeOf(c), "export", back); out != "export: 10003 records\n" {
		t.Errorf("export: %q", out)
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

// TestNoSpace: while etcd refuses writes because its quota is used up, addresses are released there and prefetched ones are given, a request
// that needs etcd fails with the remedy, and the operator is told. After the remedy everything goes on.
func TestNoSpace(t *testing.T) {
	c := etcdtest.Start(t, 1, "--quota-backend-bytes=8388608")
	n, rich := newNode(t, c, 0, `{"pool":"lan"}`), newNode(t, c, 1, `{"pool":"ahead","prefetch":"1"}`)
	addr, ok := n.ask()
	if !ok {
		t.Fatal("no address")
	}
	named := n.until("IpamDriver.RequestAddress",
		fmt.Sprintf(`{"PoolID":%q,"Options":{"com.docker.network.endpoint.name":"web"}}`, n.pool))["Address"]
	named, _, _ = strings.Cut(named, "/")
	if _, ok := rich.ask(); !ok { // a pool that is used has prefetched addresses
		t.Fatal("no address")
	}
	awaitPrefetched(t, c, 1)
	c.FillUp()
	if answer, ok := n.call("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, n.pool)); ok ||
		!strings.Contains(answer["Err"], "compact and defragment etcd or raise its quota, then disarm its alarm") {
		t.Errorf("request of an address: %v", answer)
	}
	if got, ok := rich.ask(); !ok {
		t.Errorf("request of a prefetched address: %s", got)
	}
	for _, addr := range []string{addr, named} {
		n.awaitReleased(c, addr)
	}
	wantNodes(t, c, "NOSPACE")
	c.MakeSpace()
	wantNodes(t, c, "ok")
	got := n.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, n.pool, addr))
	if !strings.HasPrefix(got["Address"], addr+"/") {
		t.Errorf("after the remedy: %v", got)
	}
}

// awaitReleased releases an address of the node's pool, and waits until etcd does not have its lease any more.
func (n *node) awaitReleased(c *etcdtest.Cluster, addr string) {
	n.Helper()
	client := c.Client(n.T)
	h, _ := pool.ParseHandle(n.pool)
	leased := func() (bool, error) {
		r, err := client.Get(n.Context(), "/unique/r/"+pool.LeaseKey(h.ID, netip.MustParseAddr(addr)), clientv3.WithCountOnly())
		return err == nil && r.Count > 0, err
	}
	if yes, err := leased(); err != nil || !yes {
		n.Errorf("etcd has a lease of %s: %t, %v", addr, yes, err)
	}
	n.release(addr)
	err := retry.Poll(n.Context(), 50*time.Millisecond, 30*time.Second, func() (bool, error) {
		yes, err := leased()
		return !yes, err
	})
	if err != nil {
		n.Errorf("lease of %s in etcd: %v", addr, err)
	}
}

// wantNodes compares the state of the only etcd member that the operator is shown.
func wantNodes(t *testing.T, c *etcdtest.Cluster, state string) {
	t.Helper()
	want := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(c.Endpoints()[0]) + ` +3\.[0-9.]+ +[0-9.]+ MiB +[0-9.]+ MiB +8\.0 MiB +` + state + `$`)
	if list := mustOperate(t, t.TempDir(), storeOf(c), "nodes"); !want.MatchString(list) {
		t.Errorf("nodes prints\n%s\nwant a line %s", list, want)
	}
}

// TestNodeCalls: the plugin itself lists the nodes and the etcd's servers, and removes a lost node; one that was seen now it removes only if
// it is told so.
func TestNodeCalls(t *testing.T) {
	c := etcdtest.Start(t, 1)
	lost, other := newNode(t, c, 0, `{"pool":"lan"}`), newNode(t, c, 1, `{"pool":"lan"}`)
	if _, ok := lost.ask(); !ok {
		t.Fatal("no address")
	}
	plugin := admin.NewClient(other.socket)
	var nodes admin.Nodes
	err := retry.Poll(t.Context(), 100*time.Millisecond, 60*time.Second, func() (bool, error) {
		err := plugin.Call(t.Context(), admin.NodesCall, struct{}{}, &nodes)
		unseen := slices.ContainsFunc(nodes.Nodes, func(n admin.Node) bool { return n.Seen.IsZero() || n.Pools != 1 || n.Lost })
		return len(nodes.Nodes) == 2 && !unseen, err
	})
	if err != nil || len(nodes.Servers) != 1 || nodes.Servers[0].Version == "" || nodes.Servers[0].Error != "" {
		t.Fatalf("nodes: %+v, %v", nodes, err)
	}
	lost.end()
	ledger, err := os.ReadFile(filepath.Join(lost.state, ledgerFile))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(nodes.Nodes, func(n admin.Node) bool { return strings.Contains(string(ledger), n.ID) })
	if i < 0 {
		t.Fatal("the node's own ledger does not say who it is")
	}
	r, answer := admin.ForgetRequest{Node: nodes.Nodes[i].ID}, admin.ForgetAnswer{}
	if err := plugin.Call(t.Context(), admin.ForgetCall, r, &answer); err == nil || !strings.Contains(err.Error(), "was seen") {
		t.Errorf("a node that was seen now: %v", err)
	}
	r.Force = true
	if err := plugin.Call(t.Context(), admin.ForgetCall, r, &answer); err != nil || answer.Pools != 1 {
		t.Errorf("forget: %+v, %v", answer, err)
	}
	if err := plugin.Call(t.Context(), admin.NodesCall, struct{}{}, &nodes); err != nil || !nodes.Nodes[i].Lost || nodes.Nodes[i].Pools != 0 {
		t.Errorf("nodes afterwards: %+v, %v", nodes, err)
	}
	if _, ok := other.ask(); !ok {
		t.Error("the other node has no address")
	}
}
