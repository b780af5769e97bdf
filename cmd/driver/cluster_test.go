//go:build cluster

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// TestOnEtcd: pools and addresses are in etcd and survive a kill of the plugin; nothing else is there.
func TestOnEtcd(t *testing.T) {
	c := etcdtest.Start(t, 1)
	p := newProcess(t)
	p.cmd.Env = append(p.cmd.Env, "STORE=etcd://"+strings.Join(c.Endpoints(), ",")+"?prefix=/test")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pool := answered(t, p, "IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24"}`)["PoolID"]
	first := answered(t, p, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))["Address"]
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed

	next := newProcess(t)
	next.cmd.Env = append(next.cmd.Env, p.cmd.Env[len(p.cmd.Env)-1])
	if err := next.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	second := answered(t, next, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))["Address"]
	if first == second {
		t.Errorf("%s was given twice", first)
	}
	resp, err := c.Client(t).Get(context.Background(), "/test/r/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, kv := range resp.Kvs {
		kinds[strings.Join(strings.Split(string(kv.Key), "/")[3:5], "/")]++
	}
	delete(kinds, "cluster/seen") // it may not have been due yet
	if diff := cmp.Diff(map[string]int{"ipam/pool": 1, "ipam/lease": 2, "cluster/member": 2, "cluster/process": 2}, kinds); diff != "" {
		t.Errorf("in etcd (-want +got):\n%s", diff)
	}
}

// answered makes a call that must succeed.
func answered(t *testing.T, p *process, op, body string) map[string]any {
	t.Helper()
	text, err := callWhenUp(p.socket, op, body)
	if err != nil {
		t.Fatal(err)
	}
	status, answer, _ := strings.Cut(text, " ")
	var fields map[string]any
	if err := json.Unmarshal([]byte(answer), &fields); err != nil || status != "200" {
		t.Fatalf("%s: %s", op, text)
	}
	return fields
}

// TestPoolOfTwoNodes: two plugins that share a pool by its name never give the same address, and neither fails the other.
func TestPoolOfTwoNodes(t *testing.T) {
	c := etcdtest.Start(t, 1)
	const each = 100
	given := make(chan string, 2*each)
	var working sync.WaitGroup
	for range 2 {
		p := newProcess(t)
		p.cmd.Env = append(p.cmd.Env, "STORE=etcd://"+strings.Join(c.Endpoints(), ",")+"?prefix=/test")
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pool := answered(t, p, "IpamDriver.RequestPool",
			`{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24","Options":{"pool":"lan"}}`)["PoolID"]
		working.Go(func() {
			for range each {
				text, err := callWhenUp(p.socket, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, pool))
				if err != nil {
					t.Error(err)
				}
				given <- text
			}
		})
	}
	working.Wait()
	close(given)
	seen := map[string]bool{}
	for text := range given {
		if !strings.HasPrefix(text, "200 ") {
			t.Error(text)
		}
		if seen[text] {
			t.Errorf("given twice: %s", text)
		}
		seen[text] = true
	}
}
