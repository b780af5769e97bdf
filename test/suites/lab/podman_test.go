//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestPodman: containers of Docker and of podman have VFs of one PF. Podman's has what the NIC has to set, reaches Docker's, and gives the VF back, also
// to a process that was killed. If its network namespace ended before it did, it gives the VF back when it starts again.
func TestPodman(t *testing.T) {
	asBefore(t)
	Sh(t, "install -D -m 755 passthrough-cni /opt/podman/usr/local/libexec/netavark/passthrough")
	Sh(t, "podman image exists busybox || podman import -q - busybox < /usr/share/lab/image.tar")
	sriov(t, "n", "10.77.0.0/24", "--ip-range", "10.77.0.0/26", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Sh(t, "podman network create -d passthrough -o netdevice="+pf+" -o max_tx_rate=100 --subnet 10.77.0.0/24 --ip-range 10.77.0.64/26 --internal pods")
	remove := func(name string) {
		t.Helper()
		Within(t, time.Minute, func() string { // podman's own removal after the container's end may be under way, and one of the two fails
			if _, err := Try("podman", "rm", "-f", "-t0", name); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	t.Cleanup(func() {
		remove("web1")
		remove("web2")
		Sh(t, "podman network rm -f pods")
	})
	run := func(name, mac string) error {
		_, err := Try("podman", "run", "-d", "--name", name, "--network", "pods:mac="+mac, "busybox", "sleep", "1000000")
		return err
	}
	reaches := func(name string) {
		t.Helper()
		Within(t, 20*time.Second, func() string {
			_, err := Try("podman", "exec", name, "ping", "-c1", "-W1", Address(t, "one1", "n"))
			if err != nil {
				return name + " does not reach one1"
			}
			return ""
		})
	}
	for _, way := range []string{"at once", "after the process was killed", "after its namespace"} {
		if err := run("web1", "02:00:00:00:00:43"); err != nil {
			t.Fatal(err)
		}
		reaches("web1")
		if line := vfLine(t, "02:00:00:00:00:43"); !strings.Contains(line, "max_tx_rate 100Mbps") {
			t.Errorf("the NIC has %s", line)
		}
		WantLine(t, Sh(t, "./passthroughctl who web1"), "podman web1", "pods", "02:00:00:00:00:43")
		if err := run("web2", "02:00:00:00:00:44"); err == nil || !strings.Contains(err.Error(), "all 2 vfs are in use") {
			t.Errorf("a third VF of two: %v", err)
		}
		remove("web2")
		switch way {
		case "after the process was killed":
			Sh(t, "kill -9 $(pidof driver)")
		case "after its namespace": // netavark 1.14 does not tell the plugin then; the next start gives back what it had
			Sh(t, "ip netns del $(basename $(podman inspect -f '{{.NetworkSettings.SandboxKey}}' web1))")
			_, _ = Try("podman", "stop", "-t0", "web1")
			Sh(t, "podman start web1")
			reaches("web1")
		}
		remove("web1")
		Within(t, 30*time.Second, func() string {
			if status := Sh(t, "./passthroughctl status"); strings.Contains(status, "podman") {
				return way + ": " + status
			}
			return ""
		})
	}
	Container(t, "two2", "--net", "n")
	Exec(t, "two2", "ip", "link", "show", "eth0")
}
