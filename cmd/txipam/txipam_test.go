package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/test/harness/ipamserver"
)

// TestMain runs the tests, or the program itself if it is called by its name, as a plugin does that delegates to it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "txipam" {
		main()
		return
	}
	os.Exit(m.Run())
}

// networks has the addresses of the original's usage.
const networks = `[{"name": "mynet", "subnets": [
	{"subnet": "10.55.206.0/26", "first": "10.55.206.46", "last": "10.55.206.48", "gateway": "10.55.206.1"}],
	"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.55.206.2"}], "dns": {"nameservers": ["10.0.0.53"]}}]`

// A host has the program and the server.
type host struct {
	*testing.T
	*ipamserver.Server
	program, data string
}

func newHost(t *testing.T) host {
	t.Helper()
	h := host{t, ipamserver.Start(t, networks), filepath.Join(t.TempDir(), "txipam"), t.TempDir()}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, h.program)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// conf is the original's configuration, with the addresses of this test.
func (h host) conf(more string) string {
	return fmt.Sprintf(`{
    "name": "mynet",
    "type": "sriov",
    "master": "eth1", %s
    "ipam": {
        "type": "txipam",
        "remote": %q,
        "ca": %q,
        "tokenFile": %q, "dataDir": %q
    }
}`, more, h.URL, h.CA, h.TokenFile, h.data)
}

// cni runs a command as a plugin does that delegates to the program.
func (h host) cni(command, container, args, conf string) (string, error) {
	cmd := exec.Command(h.program)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+container, "CNI_NETNS=/var/run/netns/"+container, "CNI_IFNAME=eth1",
		"CNI_ARGS="+args, "CNI_PATH="+filepath.Dir(h.program))
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", command, container, err, out)
	}
	return string(out), err
}

func (h host) must(command, container, args, conf string) string {
	h.Helper()
	out, err := h.cni(command, container, args, conf)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// leased checks which addresses the server has leased.
func (h host) leased(want ...string) {
	h.Helper()
	if got := slices.Sorted(maps.Keys(h.Leases())); !slices.Equal(got, want) {
		h.Errorf("the server has leased %v, want %v", got, want)
	}
}

// TestOriginalUsage is the usage of the plugin that this one takes the place of: what it is told, and what it prints.
func TestOriginalUsage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	out := h.must("ADD", "1234", "IgnoreUnknown=1;PodID=1234;HostIP=10.55.206.20;CORES=1,2,3,4", h.conf(""))
	var got struct {
		IP4 struct {
			IP, Gateway string
			Routes      []struct{ Dst, GW string }
		} `json:"ip4"`
		DNS struct{ Nameservers []string } `json:"dns"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.IP4.IP != "10.55.206.46/26" || got.IP4.Gateway != "10.55.206.1" ||
		len(got.IP4.Routes) != 2 || got.IP4.Routes[1].GW != "10.55.206.2" || got.DNS.Nameservers[0] != "10.0.0.53" {
		t.Errorf("the result is %s, %v", out, err)
	}
	h.leased("10.55.206.46")
	if again := h.must("ADD", "1234", "PodID=1234;HostIP=10.55.206.20", h.conf("")); again != out {
		t.Errorf("ADD again: %s", again)
	}
	h.must("DEL", "1234", "PodID=1234;HostIP=10.55.206.20", h.conf(""))
	h.leased()
	h.must("DEL", "1234", "PodID=1234;HostIP=10.55.206.20", h.conf(""))
	if again := h.must("ADD", "1234", "PodID=1234;HostIP=10.55.206.20", h.conf("")); !strings.Contains(again, "10.55.206.47/26") {
		t.Errorf("ADD after DEL: %s", again)
	}
}

// TestCommands: the commands of the newest version, and what a runtime asks for.
func TestCommands(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const version = `"cniVersion": "1.1.0",`
	conf := h.conf(version)
	out := h.must("ADD", "a", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0", h.conf(version+`"runtimeConfig": {"mac": "02:00:00:00:00:42", "ips": ["10.55.206.48/26"]},`))
	var got struct {
		IPs []struct{ Address, Gateway string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.IPs) != 1 || got.IPs[0].Address != "10.55.206.48/26" {
		t.Errorf("the result is %s", out)
	}
	if _, err := h.cni("ADD", "b", "IP=10.55.206.48", conf); err == nil || !strings.Contains(err.Error(), "address 10.55.206.48 is in use") {
		t.Errorf("an address that is in use: %v", err)
	}
	with := h.conf(version + `"prevResult": ` + out + ",")
	h.must("CHECK", "a", "", with)
	if _, err := h.cni("CHECK", "b", "", with); err == nil {
		t.Error("CHECK succeeds without addresses")
	}
	h.must("STATUS", "", "", conf)
	h.must("ADD", "b", "", conf)
	h.must("ADD", "c", "", conf)
	if out, err := h.cni("ADD", "d", "", conf); err == nil || !strings.Contains(out, "network mynet has no address left") {
		t.Errorf("a network that is full: %s", out)
	}
	h.leased("10.55.206.46", "10.55.206.47", "10.55.206.48")
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		h.must("GC", "", "", h.conf(version+`"`+key+`": [{"containerID": "a", "ifname": "eth1"}, {"containerID": "c", "ifname": "eth0"}],`))
	}
	h.leased("10.55.206.48")
	for text, want := range map[string]string{
		strings.Replace(conf, "https://", "http://", 1):                 "the address is https://HOST:PORT",
		strings.Replace(conf, `"name": "mynet",`, `"name": "my/n",`, 1): "invalid",
	} {
		if out, err := h.cni("ADD", "d", "", text); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s", text, out)
		}
	}
	for args, want := range map[string]string{"HostIP=x": "is no address", "IP=x": "is no address", "PODID=1": "unknown args"} {
		if out, err := h.cni("ADD", "d", args, conf); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s", args, out)
		}
	}
}

// TestServerAway: no address is lost, and none is given twice, whatever of the server or its answers is missing.
func TestServerAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := h.conf("")
	h.must("ADD", "a", "", conf)
	h.Kill()
	if out, err := h.cni("ADD", "b", "", conf); err == nil || !strings.Contains(out, `"code": 11`) || !strings.Contains(out, "does not answer") {
		t.Errorf("ADD without a server: %s", out)
	}
	h.must("DEL", "a", "", conf)
	if out, err := h.cni("STATUS", "", "", h.conf(`"cniVersion": "1.1.0",`)); err == nil || !strings.Contains(out, `"code": 50`) {
		t.Errorf("STATUS without a server: %s", out)
	}
	h.leased("10.55.206.46")
	h.Restart()
	h.Lose(func(r *http.Request) bool { return r.Method == http.MethodPut })
	if out, err := h.cni("ADD", "b", "", conf); err == nil {
		t.Errorf("ADD without an answer: %s", out)
	}
	h.leased("10.55.206.46", "10.55.206.47")
	h.Lose(func(*http.Request) bool { return false })
	h.must("ADD", "c", "", conf)
	h.leased("10.55.206.48")
	h.must("DEL", "c", "", conf)
	h.leased()
	for _, files := range []string{"mynet/*:*", "mynet/released/*"} {
		if left, err := filepath.Glob(filepath.Join(h.data, files)); err != nil || len(left) > 0 {
			t.Errorf("files that are left: %v, %v", left, err)
		}
	}
}
