//go:build kernel

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/admin"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// A dockerPool is the pool of a network of Docker that the manual creates, of which only the requests for addresses are made here.
type dockerPool struct {
	host
	id string
}

// call makes a call of an engine.
func (p dockerPool) call(op string, request map[string]any, answer any) error {
	return admin.NewClient(p.socket).Call(p.Context(), "IpamDriver."+op, request, answer)
}

// dockerPool requests the pool of the manual's docker network create.
func (h host) dockerPool() dockerPool {
	h.Helper()
	flags := map[string]string{}
	for _, f := range regexp.MustCompile(`--([a-z-]+) (\S+)`).FindAllStringSubmatch(docs.Commands(h.T, "../../docs/cni.md", "Addresses of the plugin")[0], -1) {
		flags[f[1]] = f[2]
	}
	option, value, _ := strings.Cut(flags["ipam-opt"], "=")
	p := dockerPool{host: h}
	var got struct{ PoolID string }
	err := p.call("RequestPool", map[string]any{"Pool": flags["subnet"], "SubPool": flags["ip-range"], "Options": map[string]string{option: value}}, &got)
	if err == nil {
		err = p.call("RequestAddress", map[string]any{"PoolID": got.PoolID, "Address": flags["gateway"],
			"Options": map[string]string{"RequestAddressType": "com.docker.network.gateway"}}, &struct{}{})
	}
	if err != nil || got.PoolID == "" {
		h.Fatalf("the pool of Docker: %q, %v", got.PoolID, err)
	}
	p.id = got.PoolID
	return p
}

// rest requests all addresses that are left, and releases them.
func (p dockerPool) rest() (got []string) {
	p.Helper()
	for {
		var a struct{ Address string }
		if err := p.call("RequestAddress", map[string]any{"PoolID": p.id}, &a); err != nil {
			if !strings.Contains(err.Error(), " addresses of ip-range 10.55.206.32/27 are ") {
				p.Fatal(err)
			}
			break
		}
		got = append(got, a.Address)
	}
	for _, a := range got {
		bare, _, _ := strings.Cut(a, "/")
		if err := p.call("ReleaseAddress", map[string]any{"PoolID": p.id, "Address": bare}, &struct{}{}); err != nil {
			p.Fatal(err)
		}
	}
	return got
}

// TestPools: containers of CNI and of Docker share a pool, with the configuration of the manual and containernetworking's own runtime, also if
// the process is killed meanwhile. No address is given twice, and what is asked for is given if it is free.
func TestPools(t *testing.T) {
	h := host{t, t.TempDir(), filepath.Join(t.TempDir(), "p.sock")}
	cable(t)
	kill := h.start()
	docker := h.dockerPool()
	all := docker.rest()
	conf := t.TempDir()
	list := strings.Replace(string(shown(t, "Addresses of the plugin")), `"netdevice": "enp1s0"`,
		fmt.Sprintf(`"netdevice": "e0", "mode": "macvlan", "socket": %q`, h.socket), 1)
	if err := os.WriteFile(filepath.Join(conf, "20-lan.conflist"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(command, pod, ips string) string {
		return fmt.Sprintf(`CAP_ARGS='{"ips": [%s]}' NETCONFPATH=%s CNI_PATH=%s %s/cnitool %s lan /run/netns/%s 2>&1`, ips, conf, built, built, command, pod)
	}
	for _, pod := range []string{"a", "b"} {
		h.netns(pod)
	}
	var a struct {
		IPs    []struct{ Address, Gateway string }
		Routes []struct{ Dst string }
	}
	if err := json.Unmarshal([]byte(Sh(t, tool("add", "a", ""))), &a); err != nil || len(a.IPs) != 1 || a.IPs[0].Gateway != "10.55.206.1" || len(a.Routes) != 1 {
		t.Fatalf("the result is %+v, %v", a, err)
	}
	inside := Sh(t, "ip -n a -br address show eth0; ip -n a route")
	if !slices.Contains(all, a.IPs[0].Address) || !strings.Contains(inside, a.IPs[0].Address) || !strings.Contains(inside, "default via 10.55.206.1 dev eth0") {
		t.Errorf("inside: %s", inside)
	}
	bare, _, _ := strings.Cut(a.IPs[0].Address, "/")
	if out := Sh(t, "! "+tool("add", "b", `"`+bare+`"`)); !strings.Contains(out, "request address "+bare+": in use since ") {
		t.Errorf("an address that is in use: %s", out)
	}
	if out := Sh(t, tool("add", "b", `"10.55.206.60/26"`)); !strings.Contains(out, `"10.55.206.60/26"`) {
		t.Errorf("an address that is free: %s", out)
	}
	wantRest := func(when string, but ...string) {
		t.Helper()
		got := docker.rest()
		if left := slices.DeleteFunc(slices.Clone(all), func(x string) bool { return slices.Contains(but, x) }); len(got) != len(left) ||
			slices.ContainsFunc(but, func(x string) bool { return slices.Contains(got, x) }) {
			t.Errorf("%s: Docker gets %v", when, got)
		}
	}
	l, err := invariant.ReadLedger(h.dir)
	if err != nil || len(l.Endpoints) != 2 {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, v := range (invariant.Facts{Ledger: l}).Violations() {
		t.Error(v)
	}
	wantRest("both", a.IPs[0].Address, "10.55.206.60/26")
	Sh(t, tool("check", "a", ""))
	Sh(t, "ip -n a address del "+a.IPs[0].Address+" dev eth0")
	if out := Sh(t, "! "+tool("check", "a", "")); !strings.Contains(out, "eth0 does not have the address "+a.IPs[0].Address) {
		t.Errorf("without its address: %s", out)
	}
	kill()
	Sh(t, "! "+tool("del", "b", ""))
	kill = h.start()
	wantRest("after the process was killed", a.IPs[0].Address, "10.55.206.60/26")
	Sh(t, tool("del", "b", ""))
	Sh(t, tool("del", "b", ""))
	wantRest("one", a.IPs[0].Address)
	Sh(t, tool("del", "a", ""))
	wantRest("none")
	h.wantFree()
	kill()
	if l, err = invariant.ReadLedger(h.dir); err != nil || len(l.Pools) != 1 || len(l.Shares) != 1 {
		t.Errorf("pools %v, shares %v, %v", l.Pools, l.Shares, err)
	}
}
