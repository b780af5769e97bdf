//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestRDMA: passthroughctl finds the device of rdma_rxe at the PF that it is made on, says what the mode of namespaces means, and sees the GID of
// a container's macvlan child. A container whose VF has no RDMA device does not start with rdma=yes. The commands of docs/hpc.md show the plugin
// the network namespaces of containers.
func TestRDMA(t *testing.T) {
	asBefore(t)
	Sh(t, "modprobe rdma_rxe && modprobe ib_uverbs && rdma link add rxe0 type rxe netdev "+pf)
	t.Cleanup(func() { Sh(t, "rdma link delete rxe0") })
	sriov(t, "hpc", "10.1.0.0/24", "-o", "numvfs=3", "-o", "rdma=yes")

	WantLine(t, Sh(t, "./passthroughctl nics"), pf, "rxe0")
	WantLine(t, Sh(t, "./passthroughctl nics -f json"), `"uverbs0"`)
	WantLine(t, Sh(t, "./passthroughctl status"), "hpc", "rxe0")
	WantLine(t, Sh(t, "./passthroughctl doctor"), "warn", "netns mode is shared: with /dev/infiniband, containers of network hpc see all 1 RDMA devices")
	Network(t, "lan", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.4.0.0/24", "-o", "netdevice="+pf, "-o", "mode=macvlan")
	Container(t, "child", "--net", "lan")
	WantLine(t, Sh(t, "./passthroughctl doctor"), "warn", "rxe0 has 1 GIDs of other network namespaces", Address(t, "child", "lan"))
	if _, err := Try("docker", "run", "--rm", "--net", "hpc", "lab", "true"); err == nil || !strings.Contains(err.Error(), "has no rdma device; the option rdma is yes") {
		t.Errorf("a VF without RDMA device: %v", err)
	}
	out, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.2.0.0/24", "-o", "netdevice="+pf, "-o", "rdma=require", "own")
	if err == nil || !strings.Contains(err.Error(), "write options ib_core netns_mode=0 to /etc/modprobe.d/ib_core.conf") {
		t.Errorf("a device of its own in shared mode: %s %v", out, err)
	}

	t.Cleanup(func() {
		Docker(t, "plugin", "disable", "-f", Plugin)
		Docker(t, "plugin", "set", Plugin, "netns.source=/proc/irq")
		Docker(t, "plugin", "enable", Plugin)
	})
	for _, command := range docs.Commands(t, "hpc.md", "Exclusive mode") {
		Sh(t, command)
	}
	sriov(t, "plain", "10.3.0.0/24")
	Container(t, "c1", "--net", "plain")
	ns := Docker(t, "inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "c1")
	WantLine(t, Sh(t, "cat /proc/$(pidof -s driver)/mountinfo"), "/host/netns"+ns[strings.LastIndex(ns, "/"):], "nsfs")
}

// TestVerbs runs the commands of docs/hpc.md and docs/cdi.md with rdma_rxe: an engine gives two containers on VFs the files of their RDMA devices by
// our spec, and programs in them transfer with their own GIDs, also while the plugin is dead, and cannot open each other's device. A killed
// container leaves no RDMA device. What rdma_rxe cannot show is as the page says: in exclusive mode no container can use its devices.
func TestVerbs(t *testing.T) {
	if kernel := Sh(t, "uname -r"); !strings.HasPrefix(kernel, "7.") {
		t.Skip("Linux " + kernel + " has rdma_rxe in the host's network namespace only, and its engines have CDI behind a feature flag, or none")
	}
	asBefore(t)
	t.Cleanup(func() {
		_, _ = Try("sh", "-c", "docker rm -f server client; docker network rm customer1; rdma system set netns shared")
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "cdi.source=/proc/irq"}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
		Sh(t, "rm -rf /etc/cdi")
	})
	for _, command := range docs.Commands(t, "cdi.md", "The folder") {
		Sh(t, command)
	}
	c := docs.Commands(t, "hpc.md", "Without an RDMA NIC")
	if len(c) != 10 {
		t.Fatalf("docs/hpc.md shows %q", c)
	}
	prepare, soft, start, ping := c[:2], c[2:4], c[4:8], c[8:]
	for _, command := range append(prepare, soft...) {
		Sh(t, command)
	}
	inSpec := func(files ...string) {
		t.Helper()
		Within(t, 90*time.Second, func() string {
			for _, file := range files {
				if !strings.Contains(Sh(t, "cat /etc/cdi/passthrough-customer1.json"), "/dev/infiniband/"+file) {
					return "the spec has no " + file
				}
			}
			return ""
		})
	}
	inSpec("uverbs0", "uverbs1", "rdma_cm")
	for _, command := range start {
		Sh(t, command)
	}
	for name, want := range map[string]string{"server": "rdma_cm\nuverbs0", "client": "rdma_cm\nuverbs1"} {
		if files := Exec(t, name, "ls", "/dev/infiniband"); files != want {
			t.Errorf("%s has the files %q", name, files)
		}
	}
	transfer := func(program *strings.Replacer) (out string) {
		t.Helper()
		Sh(t, program.Replace(ping[0]))
		Within(t, time.Minute, func() string {
			var err error
			if out, err = Try("sh", "-c", program.Replace(ping[1])); err != nil { // the server may not listen yet
				return out + err.Error()
			}
			return ""
		})
		return out
	}
	Sh(t, "kill -9 $(pidof driver)")
	out := transfer(strings.NewReplacer())
	WantLine(t, out, "local address", "GID ::ffff:"+Address(t, "client", "customer1"))
	WantLine(t, out, "remote address", "GID ::ffff:"+Address(t, "server", "customer1"))
	WantLine(t, transfer(strings.NewReplacer("ibv_rc_pingpong", "ib_write_bw", "-g 1", "-x 1", "-s 256", "-s 1024")), "1024", "20")
	if out, err := Try("docker", "exec", "client", "ibv_devinfo", "-d", "rxe0"); err == nil {
		t.Errorf("client can open the device of server:\n%s", out)
	}
	Docker(t, "kill", "server")
	Within(t, 20*time.Second, func() string {
		if links := Sh(t, "rdma link"); strings.Contains(links, "rxe0") || lent(t) != "1" {
			return lent(t) + " vfs are lent, and there is " + links
		}
		return ""
	})
	Docker(t, "rm", "-f", "server", "client")

	released(t, 2)
	Sh(t, soft[0])
	Sh(t, soft[1])
	inSpec("uverbs0", "uverbs1")
	if files := Sh(t, docs.Commands(t, "cdi.md", "Say twice which VF")[0]); files != "rdma_cm\nuverbs1" {
		t.Errorf("a container has the files %q", files)
	}
	if files := Sh(t, strings.Replace(docs.Commands(t, "hpc.md", "Shared and exclusive mode")[0], "uverbs3", "uverbs0", 1)); files != "rdma_cm\nuverbs0" {
		t.Errorf("a container has the files %q", files)
	}

	released(t, 2)
	Sh(t, "rdma system set netns exclusive; "+soft[0])
	Sh(t, start[0])
	Sh(t, start[1])
	WantLine(t, Sh(t, "./passthroughctl doctor"), "warn", "the plugin does not see the engine's network namespaces")
	if out, err := Try("docker", "exec", "server", "ibv_devinfo", "-d", "rxe0"); err == nil || !strings.Contains(Sh(t, "rdma link"), "rxe0") {
		t.Errorf("in exclusive mode a container has the device of rdma_rxe:\n%s", out)
	}
}
