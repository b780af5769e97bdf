//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestEngineDefaults: the plugin beside what the engine does by itself and the other tests switch off: docker0, iptables, docker_gwbridge,
// and 15 s in which dockerd ends everything when it is stopped.
func TestEngineDefaults(t *testing.T) {
	asBefore(t)
	engineDefaults(t)
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=3", "-o", "vlan=9")
	Docker(t, "run", "-d", "--name", "web1", "--restart=always", "-p", "8080:80", "lab", "httpd", "-f", "-p", "80")
	t.Cleanup(func() { _, _ = Try("docker", "rm", "-f", "web1") })
	Docker(t, "network", "connect", "vfs", "web1")
	Container(t, "always", "--net", "vfs", "--restart=always")
	Container(t, "never", "--net", "vfs")
	besideBridges(t)
	mac := MAC(t, "never", "vfs")

	Run(t, "engine", "restart")
	Within(t, 30*time.Second, func() string {
		for _, c := range []string{"web1", "always"} {
			if _, err := Try("docker", "exec", c, "true"); err != nil {
				return c + " has restart=always: " + err.Error()
			}
		}
		return ""
	})
	Within(t, 20*time.Second, func() string {
		if line := vfLine(t, mac); strings.Contains(line, "vlan") && lent(t) != "2" {
			return "the vf of a container that has ended is left as " + line
		}
		return ""
	})
	Docker(t, "start", "never")
	besideBridges(t)
}

// besideBridges checks that always and never have their VFs only and reach web1 by them, and that web1 has docker0 as well.
func besideBridges(t *testing.T) {
	t.Helper()
	for _, c := range []string{"always", "never"} {
		Reaches(t, c, Address(t, "web1", "vfs"), 5*time.Second)
		if links := Exec(t, c, "sh", "-c", "ip -o link | wc -l"); links != "2" {
			t.Errorf("%s has %s links, want lo and eth0 only", c, links)
		}
	}
	if got := Exec(t, "web1", "ip", "route"); !strings.Contains(got, "default via 172.17.0.1") || !strings.Contains(got, "10.1.0.0/24 dev eth") {
		t.Errorf("routes of web1: %s", got)
	}
	Within(t, 5*time.Second, func() string {
		if _, err := Try("nc", "-z", "-w", "2", "127.0.0.1", "8080"); err != nil {
			return "the published port of docker0: " + err.Error()
		}
		return ""
	})
	const on = `{{range .Containers}}{{.Name}} {{end}}`
	if got := Docker(t, "network", "inspect", "-f", on, "docker_gwbridge"); got != "gateway_ingress-sbox" {
		t.Errorf("on docker_gwbridge: %s", got)
	}
	if got := Run(t, "iptables", "-S", "FORWARD"); !strings.Contains(got, "-j DOCKER-USER") {
		t.Errorf("iptables: %s", got)
	}
}

// engineDefaults starts the engine without the options that engine start gives it, and as a swarm of its own, whose ingress makes
// docker_gwbridge. When the test ends everything is as it was.
func engineDefaults(t *testing.T) {
	t.Helper()
	forward := Sh(t, "cat /proc/sys/net/ipv4/ip_forward")
	t.Cleanup(func() {
		_, _ = Try("docker", "swarm", "leave", "--force")
		_, _ = Try("docker", "network", "rm", "docker_gwbridge")
		Sh(t, "engine stop && rm -f /run/dockerd.options && { ip link del docker0; nft flush ruleset; } && "+
			"echo "+forward+" >/proc/sys/net/ipv4/ip_forward && engine start")
	})
	Run(t, "engine", "restart", "--defaults")
	Docker(t, "swarm", "init", "--advertise-addr", "127.0.0.1")
	Within(t, 20*time.Second, func() string {
		if _, err := Try("docker", "network", "inspect", "docker_gwbridge"); err != nil {
			return err.Error()
		}
		return ""
	})
}
