//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// installPodman installs the plugin for podman as docs/podman.md says. Podman has the image busybox, which is the image lab.
func installPodman(t *testing.T) {
	t.Helper()
	for _, line := range docs.Commands(t, "../../../docs/podman.md", "Install") {
		if !strings.HasPrefix(line, "make ") { // test/run has made it
			Sh(t, strings.NewReplacer(" bin/", " ../../../bin/", " /usr/", " /opt/podman/usr/").Replace(line))
		}
	}
	Sh(t, "podman image exists busybox || podman import -q - busybox < /usr/share/lab/image.tar")
	if plugins := Run(t, "podman", "info", "-f", "{{.Plugins.Network}}"); !strings.Contains(plugins, "passthrough") {
		t.Fatalf("podman has the network plugins %s", plugins)
	}
}

// pings waits until a podman container reaches an address.
func pings(t *testing.T, container, address string) {
	t.Helper()
	Within(t, 10*time.Second, func() string {
		if _, err := Try("podman", "exec", container, "ping", "-c1", "-W1", address); err != nil {
			return container + " does not reach " + address
		}
		return ""
	})
}

// without waits until the plugin has nothing of podman's any more.
func without(t *testing.T) {
	t.Helper()
	Within(t, 20*time.Second, func() string {
		if out := ctl(t, "status"); strings.Contains(out, "podman") {
			return out
		}
		return ""
	})
}

// TestPodman: the commands of docs/podman.md. A container that is restarted, whose plugin process is killed before it ends, or whose network namespace
// has gone, has a device and gives it back.
func TestPodman(t *testing.T) {
	installPodman(t)
	veth(t, "pt0", "10.1.0.1/24")
	Sh(t, "ip link set pt0 up")
	before := Sh(t, "ip -br link show type macvlan")
	t.Cleanup(func() {
		removePodman(t, "web1", "web2")
		Sh(t, "podman network rm -f lan")
	})
	said := map[string]string{}
	for _, line := range docs.Commands(t, "../../../docs/podman.md", "A network") {
		said[line] = Sh(t, strings.NewReplacer("enp1s0 -o vlan=100", "pt0 -o mode=macvlan", "passthroughctl", "../../../bin/passthroughctl").Replace(line))
	}
	for line, want := range map[string]string{
		"podman exec web1 ip address":            "10.1.0.2/24",
		"podman exec web2 ip address show data0": "10.1.0.9/24",
		"passthroughctl who web1":                "podman web1",
		"passthroughctl status":                  "podman web1,podman web2",
	} {
		if !strings.Contains(said[line], want) {
			t.Errorf("%s says\n%s\nand not %s", line, said[line], want)
		}
	}
	if out := Run(t, "podman", "inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}} {{.NetworkSettings.Networks.lan.MacAddress}}", "web2"); out != "10.1.0.9 02:00:00:00:00:42" {
		t.Errorf("podman inspect: %s", out)
	}
	pings(t, "web1", "10.1.0.1")
	pings(t, "web1", "10.1.0.9")
	Sh(t, "podman restart -t0 web1")
	pings(t, "web1", "10.1.0.1")

	// A second network of a container that runs, with a whole device that has addresses of its own.
	veth(t, "pt1", "10.2.0.1/24")
	Sh(t, "ip link set pt1 up; ip addr add 10.3.0.7/24 dev pt1")
	Sh(t, "podman network create -d passthrough -o netdevice=pt1 -o mode=passthrough --subnet 10.2.0.0/24 --gateway 10.2.0.1 whole")
	t.Cleanup(func() { Run(t, "podman", "network", "rm", "-f", "whole") })
	Run(t, "podman", "network", "connect", "whole", "web1")
	pings(t, "web1", "10.2.0.1")
	_, err := Try("podman", "run", "--rm", "--network", "whole", "busybox", "true")
	if err == nil || !strings.Contains(err.Error(), "a device that is handed over whole serves one container at a time") {
		t.Errorf("a second container on a whole device: %v", err)
	}
	WantLine(t, ctl(t, "who", "10.2.0.2"), "podman web1", "whole", "pt1")
	Run(t, "podman", "network", "disconnect", "whole", "web1")
	WantLine(t, Sh(t, "ip -br address show pt1"), "UP", "10.3.0.7/24")

	_, err = Try("podman", "network", "create", "-d", "passthrough", "-o", "netdevice=pt0", "-o", "vlann=5", "refused")
	if err == nil || !strings.Contains(err.Error(), `option "vlann": unknown; did you mean vlan?`) {
		t.Errorf("an unknown option: %v", err)
	}

	Sh(t, "kill -9 $(pidof driver)")
	removePodman(t, "web1")
	Within(t, 20*time.Second, func() string {
		if out := ctl(t, "status"); strings.Contains(out, "web1") || !strings.Contains(out, "podman web2") {
			return out
		}
		return ""
	})
	Sh(t, "ip netns del $(basename $(podman inspect -f '{{.NetworkSettings.SandboxKey}}' web2))")
	// netavark 1.14 fails before it calls a plugin if the namespace is not there. The next start gives back what the container had.
	_, _ = Try("podman", "stop", "-t0", "web2")
	Run(t, "podman", "start", "web2")
	pings(t, "web2", "10.1.0.1")
	removePodman(t, "web2")
	without(t)
	if now := Sh(t, "ip -br link show type macvlan"); now != before {
		t.Errorf("left: %s", now)
	}
}

// removePodman removes containers of podman. Its own removal after the end of a container may be under way, and then one of the two fails; the
// process may be one that the engine starts later, as it was killed often.
func removePodman(t *testing.T, names ...string) {
	t.Helper()
	Within(t, 2*time.Minute, func() string {
		_, err := Try("podman", append([]string{"rm", "-f", "-t0"}, names...)...)
		return text(err)
	})
}
