//go:build kernel

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/ipamserver"
)

// TestServerAddresses is the usage of the original with addresses of a server, and the configuration of the manual: with a device that each
// kernel has, as TestOriginalUsage. What a container has stays while the server is away, and what it leaves is released when it is back.
func TestServerAddresses(t *testing.T) {
	h := newHost(t)
	if out, err := exec.Command("go", "build", "-o", built, "github.com/mellanox/passthrough/cmd/txipam").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := ipamserver.Start(t, `[{"name": "mynet", "subnets": [{"subnet": "10.55.206.0/26", "first": "10.55.206.46", "gateway": "10.55.206.1"}],
		"routes": [{"dst": "0.0.0.0/0"}]}]`)
	own := fmt.Sprintf(`"dataDir": %q, "tokenFile": %q, "remote"`, t.TempDir(), server.TokenFile)
	original := h.conf(strings.NewReplacer(`"master": "eth1"`, `"master": "e0", "mode": "macvlan"`, "https://127.0.0.1:10000", server.URL,
		"/etc/pki/ca-trust/source/anchors/ca.crt", server.CA, `"remote"`, own).Replace(`{
    "name": "mynet",
    "type": "sriov",
    "master": "eth1",
    "ipam": {
        "type": "txipam",
        "remote": "https://127.0.0.1:10000",
        "ca": "/etc/pki/ca-trust/source/anchors/ca.crt"
    }
}`))
	ns := h.netns("1234")
	inside := h.addOriginal(ns, original)
	server.Kill()
	if again := Sh(t, "ip netns exec 1234 ip -br addr show eth1; ip netns exec 1234 ip route"); again != inside {
		t.Errorf("inside while the server is away:\n%s", again)
	}
	h.must("DEL", "1234", ns, "eth1", "PodID=1234;HostIP=10.55.206.20", original)
	h.wantFree()
	if len(server.Leases()) != 1 {
		t.Errorf("the server has leased %v", server.Leases())
	}
	server.Restart()

	manual := h.conf(strings.NewReplacer(`"netdevice": "eth1"`, `"netdevice": "e0", "mode": "macvlan"`, "https://127.0.0.1:10000", server.URL,
		"/etc/txipam/server.crt", server.CA, "/etc/txipam/token", server.TokenFile, `"remote"`, strings.Split(own, `"tokenFile"`)[0]+`"remote"`).
		Replace(strings.Join(docs.Commands(t, filepath.Join("../../docs", "remote-ipam.md"), "CNI"), " ")))
	out := h.must("ADD", "1234", ns, "eth1", "", manual)
	if !strings.Contains(out, "10.55.206.47/26") || len(server.Leases()) != 1 {
		t.Errorf("the manual's: %s, the server has leased %v", out, server.Leases())
	}
	h.must("DEL", "1234", ns, "eth1", "", manual)
	h.wantFree()
	if len(server.Leases()) > 0 {
		t.Errorf("the server has leased %v", server.Leases())
	}
}
