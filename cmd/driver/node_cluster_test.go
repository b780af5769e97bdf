//go:build cluster

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
	"github.com/mellanox/passthrough/test/harness/history"
)

// engines is what the engines of all nodes know: which addresses their containers have.
type engines struct {
	log *history.History

	mu  sync.Mutex // guards has
	has map[string]int
}

// newEngines returns engines without containers.
func newEngines() *engines { return &engines{log: history.New(), has: map[string]int{}} }

// gave records that a node has given an address; call is when it was asked.
func (e *engines) gave(node int, addr string, call time.Duration) {
	e.log.Add(history.Operation{Node: node, Addr: addr, Call: call, Answer: e.log.Now()})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.has[addr] = node
}

// end has a node's engine release an address, which it does not have from then on.
func (e *engines) end(n *node, addr string) {
	e.mu.Lock()
	if e.has[addr] == n.number { // another node has it, too, if it was given twice
		delete(e.has, addr)
	}
	e.mu.Unlock()
	o := history.Operation{Node: n.number, Addr: addr, Release: true, Call: e.log.Now(), Answer: history.Never}
	if n.release(addr) {
		o.Answer = e.log.Now()
	}
	e.log.Add(o)
}

// of returns the addresses of a node's engine, in order.
func (e *engines) of(node int) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var addrs []string
	for addr, n := range e.has {
		if n == node {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// all returns the addresses of all engines, in order.
func (e *engines) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.has))
}

// node is a plugin that can be killed, with its engine, which starts it again.
type node struct {
	*testing.T
	number int
	binary string // of the plugin
	clock  string // file with the offset of its wall clock in seconds
	socket string
	state  string
	env    []string
	pool   string
	client *http.Client
	kills  sync.WaitGroup // those that are pending

	mu  sync.Mutex // guards the fields below
	cmd *exec.Cmd
	out bytes.Buffer // of processes that have ended
}

// newNode starts a plugin whose pool, with these options, is in the cluster.
func newNode(t *testing.T, c *etcdtest.Cluster, number int, options string) *node {
	t.Helper()
	n := newPlugin(t, c, "", number)
	n.begin(options)
	return n
}

// begin starts the plugin and requests its pool.
func (n *node) begin(options string) {
	n.Helper()
	n.start()
	n.Cleanup(n.end)
	answer := n.until("IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"10.0.0.0/25","Options":`+options+`}`)
	n.pool = answer["PoolID"]
}

// newPlugin is a node whose plugin does not run yet. binary is one of buildWithClock, "" for one whose clock cannot be set.
func newPlugin(t *testing.T, c *etcdtest.Cluster, binary string, number int) *node {
	t.Helper()
	p := newProcess(t)
	n := &node{T: t, number: number, binary: binary, clock: filepath.Join(t.TempDir(), "clock"), socket: p.socket, state: p.state,
		client: client(p.socket)}
	n.env = append(p.cmd.Env, "HANDLER_TIMEOUT=3s", "STORE=etcd://"+strings.Join(c.Endpoints(), ",")+"?prefix=/unique", envClock+"="+n.clock, envMachine+"="+newMachine(t))
	return n
}

// start starts the process.
func (n *node) start() {
	binary := n.binary
	if binary == "" { // this one is the plugin as well
		self, err := os.Executable()
		if err != nil {
			n.Error(err)
			return
		}
		binary = self
	}
	cmd := exec.Command(binary)
	cmd.Args = []string{"driver"}
	cmd.Env = n.env
	cmd.Stdout, cmd.Stderr = &n.out, &n.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := cmd.Start(); err != nil {
		n.Error(err)
	}
	n.cmd = cmd
}

// killAfter kills the process some time later, as the kernel does when memory is short.
func (n *node) killAfter(d time.Duration) {
	n.kills.Add(1)
	time.AfterFunc(d, func() {
		defer n.kills.Done()
		n.mu.Lock()
		defer n.mu.Unlock()
		_ = n.cmd.Process.Kill() // it may be dead
	})
}

// end kills the process.
func (n *node) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// stop stops the process as an engine does.
func (n *node) stop() {
	n.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.Error(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.Errorf("node %d: %v\n%s", n.number, err, &n.out)
	}
}

// call makes a call as an engine does. If the connection breaks because the process was killed, it starts the process again. ok is true
// if the call succeeded.
func (n *node) call(op, body string) (answer map[string]string, ok bool) {
	resp, err := n.client.Post("http://plugin/"+op, "", strings.NewReader(body))
	if err != nil {
		n.restart(err)
		return nil, false
	}
	text, err := readAnswer(resp)
	if err != nil {
		n.restart(err)
		return nil, false
	}
	status, body, _ := strings.Cut(text, " ")
	var fields map[string]any
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		n.Errorf("%s: %s: %v", op, text, err)
	}
	answer = map[string]string{}
	for name, value := range fields {
		answer[name] = fmt.Sprint(value)
	}
	return answer, status == "200"
}

// restart starts the process again if it was killed. A process that has just been started may not listen yet.
func (n *node) restart(broke error) {
	if errors.Is(broke, syscall.ECONNREFUSED) || errors.Is(broke, fs.ErrNotExist) {
		if n.cmd.Process.Signal(syscall.Signal(0)) == nil && !n.ended() {
			<-time.After(time.Millisecond)
			return
		}
	}
	_ = n.cmd.Wait() // it was killed
	n.start()
}

// ended returns true if the process is a zombie.
func (n *node) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// until repeats a call until it succeeds, for a minute.
func (n *node) until(op, body string) map[string]string {
	var last map[string]string
	for bound := time.Now().Add(time.Minute); time.Now().Before(bound); {
		answer, ok := n.call(op, body)
		if ok {
			return answer
		}
		last = answer
	}
	n.Errorf("node %d: %s: %v", n.number, op, last)
	return nil
}

// ask requests an address once.
func (n *node) ask() (string, bool) {
	answer, ok := n.call("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, n.pool))
	addr, _, _ := strings.Cut(answer["Address"], "/")
	return addr, ok
}

// release repeats a release until it succeeds, and returns false if it does not.
func (n *node) release(addr string) bool {
	return nil != n.until("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, n.pool, addr))
}

// leave releases the node's pool.
func (n *node) leave() {
	n.until("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":%q}`, n.pool))
}

// settle waits until no kill is pending and the process answers.
func (n *node) settle() {
	n.kills.Wait()
	n.until("IpamDriver.GetDefaultAddressSpaces", "")
}

// loseLedger ends the plugin, deletes its state directory, as docker plugin rm does, and starts it again. It returns how many ops were in the
// outbox.
func (n *node) loseLedger() int {
	n.settle()
	n.stop()
	owed := n.owedOrIntended()
	if err := errors.Join(os.RemoveAll(n.state), os.Mkdir(n.state, 0o700)); err != nil {
		n.Error(err)
	}
	n.start()
	return owed
}

// copyDisk returns another machine with a copy of the node's disk, while the node is off. Its plugin does not run yet.
func (n *node) copyDisk(c *etcdtest.Cluster, number int) *node {
	n.settle()
	n.stop()
	other := newPlugin(n.T, c, n.binary, number)
	if err := os.CopyFS(other.state, os.DirFS(n.state)); err != nil {
		n.Error(err)
	}
	other.pool = n.pool
	n.start()
	return other
}

// calmDown restarts the plugin until its outbox is empty.
func (n *node) calmDown() {
	n.Helper()
	for bound := time.Now().Add(time.Minute); time.Now().Before(bound); {
		n.until("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"10.0.0.0"}`, n.pool)) // the outbox comes first
		n.stop()
		owed, err := n.owed()
		n.start()
		if err != nil {
			n.Errorf("node %d: %v", n.number, err)
			return
		}
		if owed == 0 {
			return
		}
	}
	n.Errorf("node %d does not come to rest", n.number)
}

// owedOrIntended counts the ops of the outbox in the node's own ledger and in its journal. The process must not run.
func (n *node) owedOrIntended() int {
	owed, err := n.owed()
	j := journal.New(n.state + "/journal")
	intents, journalErr := j.Entries()
	if err := errors.Join(err, journalErr, j.Close()); err != nil {
		n.Error(err)
	}
	return owed + len(intents)
}

// owed counts the ops of the outbox in the node's own ledger. The process must not run.
func (n *node) owed() (count int, err error) {
	db, err := bbolt.Open(n.state+"/ledger.db", 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(key, _ []byte) error {
				if bytes.HasPrefix(key, []byte("node/owed/")) {
					count++
				}
				return nil
			})
		})
	})
	return count, errors.Join(err, db.Close())
}
