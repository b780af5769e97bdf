//go:build cluster

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// oldCluster is a folder with the keys of an etcd and with state directories, see package ipamdrv's test of it.
const oldCluster = "../../ipamdrv/testdata/ledger/96a386d"

// TestClusterOf96a386d: an etcd with the keys of the code of 96a386d is used. The watermark in the node's own ledger is of another etcd,
// so that the process refuses this one until an operator accepts it. Then it makes the pending writes.
func TestClusterOf96a386d(t *testing.T) {
	c := etcdtest.Start(t, 1)
	etcd, was := c.Client(t), restoreOldCluster(t, c)
	setting := "etcd://" + c.Endpoints()[0] + "?prefix=/passthrough"
	p := newProcess(t)
	if err := os.CopyFS(p.state, os.DirFS(filepath.Join(oldCluster, "a"))); err != nil {
		t.Fatal(err)
	}
	n := &node{T: t, socket: p.socket, state: p.state, client: client(p.socket), env: append(p.cmd.Env, "STORE="+setting)}
	n.start()
	t.Cleanup(n.end)
	text, err := callWhenUp(n.socket, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, was["a.private"]))
	if err != nil || !strings.HasPrefix(text, "500 ") || !strings.Contains(text, "driver accept") {
		t.Errorf("another etcd is answered %s, %v; want it refused until driver accept", text, err)
	}
	n.stop()
	mustOperate(t, n.state, setting, "accept")
	n.start()
	answer := n.until("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q}`, was["a.private"]))
	if !strings.HasPrefix(answer["Address"], "10.1.0.") {
		t.Errorf("the old pool gives %v", answer)
	}

	lan, _, _ := strings.Cut(strings.TrimPrefix(was["a.lan"], "v1:"), ".")
	err = retry.Poll(t.Context(), 100*time.Millisecond, time.Minute, func() (bool, error) {
		resp, err := etcd.Get(t.Context(), "/passthrough/r/ipam/", clientv3.WithPrefix())
		if err != nil {
			return false, err
		}
		records := map[string]string{}
		for _, kv := range resp.Kvs {
			records[strings.TrimPrefix(string(kv.Key), "/passthrough/r/ipam/")] = string(kv.Value)
		}
		released, pool := records["lease/"+lan+"/"+was["a.lan.c3"]], records["pool/"+strings.TrimPrefix(was["a.gone"], "v1:")]
		given := records["lease/"+lan+"/"+was["a.lan.c12"]]
		return !strings.Contains(released, `"name":"c3"`) && pool == "" && strings.Contains(given, `"name":"c12"`), nil
	})
	if err != nil {
		t.Errorf("the writes that were pending were not made: %v", err)
	}
	if list := mustOperate(t, t.TempDir(), setting, "nodes"); strings.Count(list, "  member  ") != 3 {
		t.Errorf("nodes:\n%s", list)
	}
}

// restoreOldCluster writes all keys of the old etcd, and returns what the old processes answered.
func restoreOldCluster(t *testing.T, c *etcdtest.Cluster) (was map[string]string) {
	t.Helper()
	names, errNames := os.ReadFile(filepath.Join(oldCluster, "names.json"))
	keys, errKeys := os.ReadFile(filepath.Join(oldCluster, "etcd.txt"))
	if err := errors.Join(errNames, errKeys, json.Unmarshal(names, &was)); err != nil {
		t.Fatal(err)
	}
	etcd := c.Client(t)
	for line := range strings.Lines(string(keys)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if _, err := etcd.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	return was
}
