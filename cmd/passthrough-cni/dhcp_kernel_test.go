//go:build kernel

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestDHCP: containernetworking's plugin for DHCP asks a server through the container's link, which is there before. DEL
// releases both, and again.
func TestDHCP(t *testing.T) {
	dir := t.TempDir()
	Sh(t, "ip netns add server")
	t.Cleanup(func() { Sh(t, "ip netns del server") }) // after its end of the cable
	h := newHost(t)
	Sh(t, "ip link set far netns server && ip -n server address add 10.77.0.1/24 dev far && ip -n server link set far up")
	background := func(program string, args ...string) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it does not end by itself
	}
	leases, socket := filepath.Join(dir, "leases"), filepath.Join(dir, "dhcp.sock")
	background("ip", "netns", "exec", "server", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0", "--interface=far",
		"--bind-interfaces", "--no-ping", "--dhcp-range=10.77.0.100,10.77.0.150,1h", "--dhcp-leasefile="+leases)
	background(filepath.Join(built, "dhcp"), "daemon", "-socketpath", socket)
	Within(t, 20*time.Second, func() string {
		if _, err := os.Stat(socket); err != nil {
			return err.Error()
		}
		_, err := os.Stat(leases)
		if err != nil {
			return err.Error()
		}
		return ""
	})
	ns := h.netns("pod")
	conf := h.conf(`{"cniVersion": "1.0.0", "name": "n", "type": "sriov", "master": "e0", "mode": "macvlan", "mac": "02:00:00:00:00:42",
		"ipam": {"type": "dhcp", "daemonSocketPath": "` + socket + `"}}`)
	out := h.must("ADD", "pod", ns, "net1", "", conf)
	var got struct {
		IPs []struct{ Address, Gateway string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.IPs) != 1 || !strings.HasPrefix(got.IPs[0].Address, "10.77.0.1") || got.IPs[0].Gateway != "10.77.0.1" {
		t.Fatalf("the result is %s", out)
	}
	if inside := Sh(t, "ip -n pod address show net1"); !strings.Contains(inside, got.IPs[0].Address) {
		t.Errorf("inside: %s", inside)
	}
	if known := Sh(t, "cat "+leases); !strings.Contains(known, "02:00:00:00:00:42") {
		t.Errorf("the server's leases: %s", known)
	}
	with := strings.TrimSuffix(conf, "}") + `, "prevResult": ` + out + "}"
	h.must("CHECK", "pod", ns, "net1", "", with)
	Sh(t, "ip -n pod address flush dev net1")
	if out, err := h.cni("CHECK", "pod", ns, "net1", "", with); err == nil || !strings.Contains(out, "net1 does not have the address "+got.IPs[0].Address) {
		t.Errorf("CHECK without the address: %s, %v", out, err)
	}
	h.must("DEL", "pod", ns, "net1", "", conf)
	h.wantFree()
	h.must("DEL", "pod", ns, "net1", "", conf)
}
