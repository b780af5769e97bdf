//go:build kernel

package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// netavark runs a command as netavark does, and returns its output and the text of its error.
func (h host) netavark(stdin string, args ...string) (out, refused string) {
	h.Helper()
	cmd := exec.Command(filepath.Join(built, "passthrough"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	text, err := cmd.Output()
	var answer struct{ Error string }
	if err != nil && (json.Unmarshal(text, &answer) != nil || answer.Error == "") {
		h.Fatalf("%v: %v: %s", args, err, text)
	}
	return string(text), answer.Error
}

// container is what podman says of a container on a network, with options of the network, and what else it says of the container there.
func (h host) container(options, rest string) string {
	return fmt.Sprintf(`{"container_id": "752947ff91f9", "container_name": "web1", "port_mappings": [{"container_port": 80}],
		"network": {"name": "lan", "id": "2f259b", "driver": "passthrough", "dns_enabled": false, "internal": false, "ipv6_enabled": false,
			"options": {"netdevice": "e0", "socket": %q, %s}, "ipam_options": {"driver": "host-local"},
			"routes": [{"destination": "10.9.0.0/24", "gateway": "10.1.0.9"}],
			"subnets": [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "lease_range": null}, {"subnet": "fd00:1::/64", "gateway": "fd00:1::1"}]},
		"network_options": {"interface_name": "data0", "aliases": ["752947ff91f9"], %s}}`, h.socket, options, rest)
}

// podman runs a command that has to succeed.
func (h host) podman(command, netns, options, rest string) string {
	h.Helper()
	out, refused := h.netavark(h.container(options, rest), command, netns)
	if refused != "" {
		h.Fatalf("%s: %s", command, refused)
	}
	return out
}

// TestPodmanModes: netavark's commands in the modes that need no VF: addresses that podman has chosen, routes, a MAC, whose the device is, and all of
// it given back, twice.
func TestPodmanModes(t *testing.T) {
	h := newHost(t)
	if out, _ := h.netavark("", "info"); out != `{"api_version":"1.0.0","version":"unversioned"}`+"\n" {
		t.Errorf("info: %s", out)
	}
	for _, mode := range []string{"macvlan", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			h := host{t, h.dir, h.socket}
			ns := h.netns("pod")
			options, rest := fmt.Sprintf(`"mode": %q`, mode), `"static_mac": "02:00:00:00:00:42", "static_ips": ["10.1.0.7", "fd00:1::7"]`
			got, want := h.podman("setup", ns, options, rest), `{"dns_search_domains":null,"dns_server_ips":null,"interfaces":{"data0":{"mac_address":"02:00:00:00:00:42",`+
				`"subnets":[{"gateway":"10.1.0.1","ipnet":"10.1.0.7/24"},{"gateway":"fd00:1::1","ipnet":"fd00:1::7/64"}]}}}`+"\n"
			if got != want {
				t.Errorf("setup: %s, want %s", got, want)
			}
			inside := Sh(t, "ip netns exec pod sh -c 'ip -br addr show data0; ip route; ip -6 route'")
			for _, part := range []string{"10.1.0.7/24", "fd00:1::7/64", "default via 10.1.0.1 dev data0 metric 100", "10.9.0.0/24 via 10.1.0.9", "default via fd00:1::1"} {
				if !strings.Contains(inside, part) {
					t.Errorf("inside is no %s:\n%s", part, inside)
				}
			}
			for _, name := range []string{"web1", "752947ff91f9/data0", "10.1.0.7"} {
				WantLine(t, Run(t, filepath.Join(built, "passthroughctl"), "who", name, "--socket", h.socket), "podman web1", "lan", "10.1.0.7/24")
			}
			for range 2 {
				if out := h.podman("teardown", ns, options, rest); out != "" {
					t.Errorf("teardown: %s", out)
				}
			}
			h.wantFree()
		})
	}
}

// TestPodmanRoutes: without gateways, or with the option gateway=none, there is no default route. A container can have options of its own.
func TestPodmanRoutes(t *testing.T) {
	h := newHost(t)
	ns := h.netns("pod")
	rest := `"static_ips": ["10.1.0.7"], "options": {"mtu": "1400"}`
	h.podman("setup", ns, `"mode": "macvlan", "gateway": "none"`, rest)
	if inside := Sh(t, "ip netns exec pod sh -c 'ip link show data0; ip route'"); strings.Contains(inside, "default via") || !strings.Contains(inside, "mtu 1400") {
		t.Errorf("inside:\n%s", inside)
	}
	h.podman("teardown", ns, `"mode": "macvlan", "gateway": "none"`, rest)
	h.wantFree()
}

// TestPodmanEnds: a namespace that ends before teardown, a process that is killed before it and is there again while teardown waits, and a
// container that starts in another namespace without a teardown.
func TestPodmanEnds(t *testing.T) {
	for way, mode := range map[string]string{"namespace": "macvlan", "process": "passthrough", "another": "macvlan"} { // a veth ends with its namespace
		t.Run(way, func(t *testing.T) {
			h := host{t, t.TempDir(), filepath.Join(t.TempDir(), "p.sock")}
			cable(t)
			kill := h.start()
			ns := h.netns("pod")
			options, rest := fmt.Sprintf(`"mode": %q`, mode), `"static_ips": ["10.1.0.7"]`
			h.podman("setup", ns, options, rest)
			switch way {
			case "namespace":
				Sh(t, "ip netns del pod")
			case "process":
				kill()
				cmd := exec.Command(filepath.Join(built, "passthrough"), "teardown", ns)
				cmd.Stdin = strings.NewReader(h.container(options, rest))
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				h.start()
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			case "another":
				Sh(t, "ip netns del pod")
				ns = h.netns("other")
				h.podman("setup", ns, options, rest)
			}
			h.podman("teardown", ns, options, rest)
			h.wantFree()
		})
	}
}

// TestPodmanCreate: what netavark stores, and what is refused with the reason.
func TestPodmanCreate(t *testing.T) {
	h := newHost(t)
	create := func(options, rest string) (string, string) {
		return h.netavark(fmt.Sprintf(`{"name": "lan", "id": "2f259b", "driver": "passthrough", "dns_enabled": true, "labels": {"a": "b"},
			"options": {"socket": %q, %s} %s}`, h.socket, options, rest), "create")
	}
	const fine = `"netdevice": "e0", "mode": "macvlan"`
	for rest, want := range map[string]string{
		"": `"ipam_options":{"driver":"none"}`,
		`, "subnets": [{"subnet": "10.1.0.0/24"}]`: `"ipam_options":{"driver":"host-local"}`,
	} {
		out, refused := create(fine, rest)
		for _, part := range []string{want, `"dns_enabled":false`, `"labels":{"a":"b"}`, `"id":"2f259b"`, `"mode":"macvlan"`} {
			if refused != "" || !strings.Contains(out, part) {
				t.Errorf("create%s: %s%s, want %s", rest, refused, out, part)
			}
		}
	}
	for _, c := range []struct{ options, rest, want string }{
		{fine + `, "vlann": "5"`, "", "vlann"},
		{`"mode": "macvlan"`, "", "netdevice"},
		{fine + `, "ifname": "x0"`, "", "option ifname: podman names the device: --network NETWORK:interface_name=NAME"},
		{fine, `, "network_interface": "e0"`, "interface e0: this driver takes the device from -o netdevice=NAME"},
		{fine, `, "ipam_options": {"driver": "dhcp"}`, "ipam driver dhcp: podman has it for its own drivers alone; use --subnet, or --ipam-driver none"},
		{fine, `, "ipam_options": {"driver": "host-local"}`, "ipam driver host-local: needs --subnet"},
		{fine, `, "subnets": [{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}]`, "subnet 10.2.0.0/24: 10.1.0.0/24 is there already; one of each family is possible"},
		{fine, `, "routes": [{"destination": "10.9.0.0/24", "route_type": "blackhole"}]`, "route 10.9.0.0/24: type blackhole is not possible"},
	} {
		if out, refused := create(c.options, c.rest); !strings.HasSuffix(refused, c.want) && !(len(c.want) < 12 && strings.Contains(refused, c.want)) {
			t.Errorf("create %s%s: %s%s, want %s", c.options, c.rest, refused, out, c.want)
		}
	}
	h.wantFree()
}
