//go:build cluster

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// addresses is the size of the pool that the nodes share.
const addresses = 200

// TestMain makes the test binary a node when it is called cluster-node, so that tests can kill one.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cluster-node": nodeMain})
}

// nodeMain is a node: it takes commands from stdin, a line each, and answers "ok ..." or "no WHY".
//
//	claim                an address; "ok KEY"
//	release KEY
//	recover KEY KEY...   the engine has these; what the node holds beside them is released, as after a crash
func nodeMain() {
	if err := serveNode(os.Args[1], strings.Split(os.Args[2], ",")); err != nil {
		fmt.Println("no", err)
		os.Exit(1)
	}
}

func serveNode(ledger string, endpoints []string) error {
	own, err := store.OpenBolt(ledger)
	if err != nil {
		return err
	}
	shared, err := store.OpenEtcd(store.EtcdConfig{Endpoints: endpoints, Prefix: "/unique"})
	if err != nil {
		return err
	}
	node, err := cluster.Join(context.Background(), own, shared, heldBy)
	if err != nil {
		return err
	}
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_ = node.Deliver(ctx) // the next round tries again
			cancel()
		}
	}()
	fmt.Println("ok", node.ID)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		answer, err := serveLine(ctx, node, shared, strings.Fields(lines.Text()))
		cancel()
		if err != nil {
			fmt.Println("no", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok", answer)
	}
	return nil
}

// claims counts what this process has claimed, so that no two values are the same.
var claims atomic.Int64

func serveLine(ctx context.Context, node *cluster.Node, shared store.Store, words []string) (string, error) {
	switch words[0] {
	case "claim":
		value := fmt.Sprintf("%s/%d.%d", node.ID, os.Getpid(), claims.Add(1))
		kv, err := node.Claim(ctx, from(node.ID, addresses), []byte(value))
		return kv.Key, err
	case "release":
		return "", node.Release(ctx, words[1])
	}
	known := map[string]bool{}
	for _, key := range words[1:] {
		known[key] = true
	}
	var lost []string
	err := shared.Range(ctx, "lease/", func(kv store.KV) error {
		if heldBy(node.ID, kv.Value) && !known[kv.Key] {
			lost = append(lost, kv.Key)
		}
		return nil
	})
	for _, key := range lost {
		if err == nil {
			err = node.Release(ctx, key)
		}
	}
	return fmt.Sprint(len(node.Queued())), err
}

// process is a node that can be killed.
type process struct {
	id        string // as it calls itself
	ledger    string
	endpoints []string
	cmd       *exec.Cmd
	in        io.Writer
	out       *bufio.Reader
	stderr    bytes.Buffer
}

// start starts the node, the first time or again.
func (p *process) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(self, p.ledger, strings.Join(p.endpoints, ","))
	p.cmd.Args[0] = "cluster-node"
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	id, ok, err := p.answer()
	p.id = id
	if err == nil && !ok {
		err = fmt.Errorf("the node does not come up")
	}
	return err
}

// ask sends a command and waits for its answer. An error is the end of the process.
func (p *process) ask(words ...string) (answer string, ok bool, err error) {
	if _, err := fmt.Fprintln(p.in, strings.Join(words, " ")); err != nil {
		return "", false, err
	}
	return p.answer()
}

func (p *process) answer() (string, bool, error) {
	line, err := p.out.ReadString('\n')
	verdict, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	return rest, verdict == "ok", err
}

// kill ends the node as a power cut does; waiting for it is for the one who asks it.
func (p *process) kill() { _ = p.cmd.Process.Kill() }
