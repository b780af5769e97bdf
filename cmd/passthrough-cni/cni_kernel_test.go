//go:build kernel

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/invariant"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// built has the programs that the tests run: the plugin process, this program under the name of sriov-cni's, and the plugins of
// containernetworking.
const built = "/run/passthrough-cni-test"

// names are those of the program: for CNI, for netavark, and its own.
var names = []string{"sriov", "passthrough", "passthrough-cni"}

// TestMain runs the tests in namespaces of their own, with a sysfs of their own. The program itself is run if it is called as sriov or passthrough.
func TestMain(m *testing.M) {
	if slices.Contains(names, filepath.Base(os.Args[0])) {
		main()
		return
	}
	code, err := 0, error(nil)
	if !sandbox.Inside() {
		code, err = sandbox.RunInside(os.Args[1:], os.Stdout)
	} else if err = prepare(); err == nil {
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cni tests:", err)
		code = 1
	}
	os.Exit(code)
}

// prepare mounts what the namespaces need, and builds the programs.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, m := range [][2]string{{"sysfs", "/sys"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(built, 0o755)
	}
	for _, name := range names {
		if err == nil {
			err = os.Symlink(self, filepath.Join(built, name))
		}
	}
	for _, pkg := range []string{"github.com/mellanox/passthrough/cmd/driver", "github.com/mellanox/passthrough/cmd/passthroughctl",
		"github.com/containernetworking/cni/cnitool",
		"github.com/containernetworking/plugins/plugins/ipam/host-local", "github.com/containernetworking/plugins/plugins/ipam/static",
		"github.com/containernetworking/plugins/plugins/ipam/dhcp"} {
		if err == nil {
			var out []byte
			if out, err = exec.Command("go", "build", "-o", built, pkg).CombinedOutput(); err != nil {
				err = fmt.Errorf("build %s: %w: %s", pkg, err, out)
			}
		}
	}
	return err
}

// A host is a machine with a device e0 that has a cable, and a plugin process.
type host struct {
	*testing.T
	dir, socket string
}

// newHost starts the process.
func newHost(t *testing.T) host {
	t.Helper()
	h := host{t, t.TempDir(), filepath.Join(t.TempDir(), "p.sock")}
	cable(t)
	h.start()
	return h
}

// cable makes the device e0.
func cable(t *testing.T) {
	t.Helper()
	Sh(t, `ip link set lo up; ip link add e0 type veth peer name far && ip link set e0 up && ip link set far up`)
	t.Cleanup(func() { Sh(t, "ip link del e0 2>/dev/null || ip link del far") })
}

// start starts a process. The function that it returns kills it; otherwise it ends with the test.
func (h host) start() (kill func()) {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	cmd := exec.CommandContext(ctx, filepath.Join(built, "driver"))
	cmd.Env = append(os.Environ(), "SOCKET="+h.socket, "STATE_DIR="+h.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	ended := sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	h.Cleanup(func() {
		ended()
		if h.Failed() {
			h.Logf("the process said:\n%s", &out)
		}
	})
	var s admin.Status
	err := retry.Poll(h.Context(), 20*time.Millisecond, 20*time.Second, func() (bool, error) {
		return admin.NewClient(h.socket).Call(h.Context(), admin.StatusCall, struct{}{}, &s) == nil, nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return ended
}

// netns makes a network namespace.
func (h host) netns(name string) string {
	h.Helper()
	Sh(h.T, "ip netns add "+name)
	h.Cleanup(func() { Sh(h.T, "ip netns del "+name+" 2>/dev/null || true") })
	return "/run/netns/" + name
}

// conf returns a configuration.
func (h host) conf(text string) string {
	return strings.TrimSuffix(strings.TrimSpace(text), "}") + fmt.Sprintf(`, "socket": %q}`, h.socket)
}

// cni runs a command as a runtime does, and returns its output.
func (h host) cni(command, container, netns, ifname, args, conf string) (string, error) {
	cmd := exec.Command(filepath.Join(built, "sriov"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+container, "CNI_NETNS="+netns, "CNI_IFNAME="+ifname,
		"CNI_ARGS="+args, "CNI_PATH="+built)
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s/%s: %w: %s", command, container, ifname, err, out)
	}
	return string(out), err
}

// must runs a command that has to succeed.
func (h host) must(command, container, netns, ifname, args, conf string) string {
	h.Helper()
	out, err := h.cni(command, container, netns, ifname, args, conf)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// wantFree checks that nothing is attached, that the records agree, and that the host has its device.
func (h host) wantFree() {
	h.Helper()
	var s admin.Status
	err := retry.Poll(h.Context(), 20*time.Millisecond, 20*time.Second, func() (bool, error) {
		err := admin.NewClient(h.socket).Call(h.Context(), admin.StatusCall, struct{}{}, &s)
		return len(s.Devices)+len(s.Networks) == 0, err
	})
	if err != nil {
		h.Errorf("still there: %+v, %v", s, err)
	}
	l, err := invariant.ReadLedger(h.dir)
	if err != nil {
		h.Fatal(err)
	}
	if len(l.Networks)+len(l.Endpoints)+len(l.Allocations) > 0 {
		h.Errorf("left in the ledger: %v", l.Keys)
	}
	Sh(h.T, "ip link show e0")
}

// hostLocal is an ipam key.
func hostLocal(dir string) string {
	return fmt.Sprintf(`"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.55.206.0/26", "rangeStart": "10.55.206.46", "gateway": "10.55.206.1"}]], "routes": [{"dst": "0.0.0.0/0"}]}`, dir)
}

// addOriginal adds the container 1234 as the original's usage does, whose result and whose device are checked. It
// returns what the container has.
func (h host) addOriginal(ns, conf string) (inside string) {
	h.Helper()
	out := h.must("ADD", "1234", ns, "eth1", "IgnoreUnknown=1;PodID=1234;HostIP=10.55.206.20", conf)
	var got struct {
		IP4 struct{ IP, Gateway string } `json:"ip4"`
		DNS json.RawMessage
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.IP4.IP != "10.55.206.46/26" || got.IP4.Gateway != "10.55.206.1" || got.DNS == nil {
		h.Errorf("the result is %s", out)
	}
	inside = Sh(h.T, "ip netns exec 1234 ip -br addr show eth1; ip netns exec 1234 ip route")
	if !strings.Contains(inside, "UP") || !strings.Contains(inside, "10.55.206.46/26") || !strings.Contains(inside, "default via 10.55.206.1 dev eth1") {
		h.Errorf("inside:\n%s", inside)
	}
	return inside
}

// TestOriginalUsage is the usage of the SR-IOV plugin that this one takes the place of: its environment and its output, on a device that each
// kernel has.
func TestOriginalUsage(t *testing.T) {
	h := newHost(t)
	ns := h.netns("1234")
	conf := h.conf(`{"name": "mynet", "type": "sriov", "master": "e0", "mode": "macvlan", ` + hostLocal(t.TempDir()) + `}`)
	h.addOriginal(ns, conf)
	h.must("DEL", "1234", ns, "eth1", "PodID=1234;HostIP=10.55.206.20", conf)
	if inside := Sh(t, "ip netns exec 1234 ip -br link"); strings.Contains(inside, "eth1") {
		t.Errorf("inside after DEL:\n%s", inside)
	}
	h.wantFree()
}

// TestModes: the modes that need no VF, with each version of the specification. ipvlan, which not every kernel has, is tested on the stand-in.
func TestModes(t *testing.T) {
	h := newHost(t)
	for mode, c := range map[string]struct {
		own      string
		versions []string
	}{
		"macvlan":     {`"mac": "02:00:00:00:00:42", `, []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}},
		"passthrough": {`"mtu": 1400, `, []string{"1.1.0"}},
	} {
		for _, version := range c.versions {
			t.Run(mode+"/"+version, func(t *testing.T) {
				h := host{t, h.dir, h.socket}
				ns := h.netns("pod")
				conf := h.conf(fmt.Sprintf(`{"cniVersion": %q, "name": "n", "type": "sriov", "master": "e0", "mode": %q, %s%s}`, version, mode, c.own,
					`"ipam": {"type": "static", "addresses": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::7/64"}]}`))
				out := h.must("ADD", "pod", ns, "net1", "", conf)
				var got struct {
					Interfaces []struct{ Name, Mac, Sandbox string }
					IPs        []struct{ Address string }
				}
				if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Interfaces) != 1 || got.Interfaces[0].Name != "net1" ||
					got.Interfaces[0].Sandbox != ns || len(got.IPs) != 2 {
					t.Errorf("the result is %s", out)
				}
				with := strings.TrimSuffix(conf, "}") + `, "prevResult": ` + out + "}"
				if version != "0.3.1" {
					h.must("CHECK", "pod", ns, "net1", "", with)
				}
				if _, err := h.cni("ADD", "pod", ns, "net1", "", conf); err == nil || !strings.Contains(err.Error(), "has a device already") {
					t.Errorf("ADD again: %v", err)
				}
				h.must("DEL", "pod", ns, "net1", "", with)
				h.must("DEL", "pod", ns, "net1", "", conf)
				h.wantFree()
			})
		}
	}
}

// TestNamespaceEnds: a namespace that ends before DEL, or without one, keeps nothing; the next pod gets the device.
func TestNamespaceEnds(t *testing.T) {
	h := newHost(t)
	conf := h.conf(`{"cniVersion": "1.1.0", "name": "n", "type": "sriov", "master": "e0", "mode": "macvlan"}`)
	for _, after := range []string{"DEL", "DEL without a namespace", "GC", "nothing"} {
		t.Run(after, func(t *testing.T) {
			h := host{t, h.dir, h.socket}
			ns := h.netns("pod")
			h.must("ADD", "pod", ns, "net1", "", conf)
			Sh(t, "ip netns del pod")
			switch after {
			case "DEL":
				h.must("DEL", "pod", ns, "net1", "", conf)
			case "DEL without a namespace":
				h.must("DEL", "pod", "", "net1", "", conf)
			case "GC":
				h.must("GC", "", "", "", "", conf)
			case "nothing":
				Sh(t, "ip link set e0 down; ip link set e0 up") // the process looks when links change
			}
			h.wantFree()
		})
	}
}

// TestGCKeys: GC keeps what the runtime has, by each name that the specification has had for the key, and takes the rest.
func TestGCKeys(t *testing.T) {
	h := newHost(t)
	conf := h.conf(`{"cniVersion": "1.1.0", "name": "n", "type": "sriov", "master": "e0", "mode": "macvlan"}`)
	ns := h.netns("pod")
	h.must("ADD", "pod", ns, "net1", "", conf)
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		h.must("GC", "", "", "", "", strings.TrimSuffix(conf, "}")+`, "`+key+`": [{"containerID": "pod", "ifname": "net1"}]}`)
		h.must("CHECK", "pod", ns, "net1", "", conf)
	}
	Sh(t, "ip netns del pod")
	h.must("GC", "", "", "", "", conf)
	h.wantFree()
}

// TestFailedAdd: what cannot be completed leaves nothing, neither with the process nor with the plugin of the addresses.
func TestFailedAdd(t *testing.T) {
	h := newHost(t)
	data := t.TempDir()
	ns := h.netns("pod")
	Sh(t, "ip netns exec pod ip link add taken type dummy || ip netns exec pod ip link add taken type veth peer name other")
	conf := h.conf(`{"cniVersion": "1.0.0", "name": "n", "type": "sriov", "master": "e0", "mode": "passthrough", ` + hostLocal(data) + `}`)
	if _, err := h.cni("ADD", "pod", ns, "taken", "", conf); err == nil || !strings.Contains(err.Error(), "rename") {
		t.Errorf("a name that is taken: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "n", "10.*")); len(left) > 0 {
		t.Errorf("addresses that nothing has: %v", left)
	}
	h.wantFree()
	for text, want := range map[string]string{
		`{"name": "n", "type": "sriov", "master": "e0", "mode": "macvlan", "vlann": 5}`: "vlann",
		`{"name": "n", "type": "sriov", "mode": "macvlan"}`:                             "netdevice",
	} {
		if _, err := h.cni("ADD", "pod", ns, "net1", "", h.conf(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := h.cni("ADD", "pod", ns, "net1", "CORE=1", conf); err == nil || !strings.Contains(err.Error(), "CNI_ARGS: CORE is not known") {
		t.Errorf("CNI_ARGS: %v", err)
	}
}

// TestAddressesStay: the addresses of a device are not released while its container has it: if ADD is repeated, and if the process does not
// answer DEL. A script stands for a plugin that answers a repeated ADD again, as that for DHCP does, which needs a server.
func TestAddressesStay(t *testing.T) {
	h := newHost(t)
	ns := h.netns("pod")
	log := filepath.Join(t.TempDir(), "log")
	script := "#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >>" + log + "\n[ $CNI_COMMAND != ADD ] || " +
		`echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.7/24"}]}'` + "\n"
	if err := os.WriteFile(filepath.Join(built, "again"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := h.conf(`{"cniVersion": "1.0.0", "name": "n", "type": "sriov", "master": "e0", "mode": "macvlan", "ipam": {"type": "again"}}`)
	h.must("ADD", "pod", ns, "net1", "", conf)
	if _, err := h.cni("ADD", "pod", ns, "net1", "", conf); err == nil || !strings.Contains(err.Error(), "has a device already") {
		t.Errorf("ADD again: %v", err)
	}
	if _, err := h.cni("DEL", "pod", ns, "net1", "", strings.Replace(conf, h.socket, h.socket+"-none", 1)); err == nil {
		t.Error("DEL succeeds without a process")
	}
	if calls := strings.Fields(Sh(t, "cat "+log)); slices.Contains(calls, "DEL") {
		t.Errorf("the addresses of a device in use were released: %v", calls)
	}
	h.must("DEL", "pod", ns, "net1", "", conf)
	if calls := strings.Fields(Sh(t, "cat "+log)); calls[len(calls)-1] != "DEL" {
		t.Errorf("the addresses were not released: %v", calls)
	}
	h.wantFree()
}

// TestStatus: the process answers, or the error says that it is not available (code 50 of the specification).
func TestStatus(t *testing.T) {
	h := newHost(t)
	conf := h.conf(`{"cniVersion": "1.1.0", "name": "n", "type": "sriov", "master": "e0"}`)
	h.must("STATUS", "", "", "", "", conf)
	if out, err := h.cni("STATUS", "", "", "", "", strings.Replace(conf, h.socket, h.socket+"-none", 1)); err == nil || !strings.Contains(out, `"code": 50`) {
		t.Errorf("without a process: %s, %v", out, err)
	}
	if out := h.must("VERSION", "", "", "", "", conf); !strings.Contains(out, `"1.1.0"`) || !strings.Contains(out, `"0.3.1"`) {
		t.Errorf("VERSION: %s", out)
	}
}

// TestCNITool: containernetworking's own runtime, with the configuration of the manual.
func TestCNITool(t *testing.T) {
	h := newHost(t)
	t.Cleanup(func() { Sh(t, "ip netns del 1234") })
	conf := t.TempDir()
	list := strings.NewReplacer(`"netdevice": "enp1s0", "vlan": 100`, fmt.Sprintf(`"netdevice": "e0", "mode": "macvlan", "socket": %q`, h.socket),
		`"type": "host-local"`, fmt.Sprintf(`"type": "host-local", "dataDir": %q`, t.TempDir())).
		Replace(strings.Join(docs.Commands(t, "../../docs/cni.md", "A network"), " "))
	if err := os.WriteFile(filepath.Join(conf, "10-mynet.conflist"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	Sh(t, fmt.Sprintf("mkdir -p /opt && mount -t tmpfs tmpfs /opt && mkdir -p /opt/cni/bin && cp %s/host-local /opt/cni/bin/", built))
	for _, command := range docs.Commands(t, "../../docs/cni.md", "Install") {
		Sh(t, "cd ../..; "+strings.NewReplacer(" bin/", " "+conf+"/bin/", "make cni", "make BIN="+conf+"/bin cni").Replace(command))
	}
	for _, command := range docs.Commands(t, "../../docs/cni.md", "By hand") {
		if strings.HasPrefix(command, "passthroughctl") {
			command += " --socket " + h.socket
		}
		out := Sh(t, fmt.Sprintf("PATH=%s:$PATH NETCONFPATH=%s; export PATH NETCONFPATH; %s", built, conf, command))
		if !strings.HasPrefix(command, "ip netns add") && !strings.Contains(command, " del ") && !strings.Contains(out, "10.55.206.46") {
			t.Errorf("%s: %s", command, out)
		}
	}
	h.wantFree()
}
