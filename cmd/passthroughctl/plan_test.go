package main

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
)

// serve answers the calls of a socket until the test ends.
func serve(t *testing.T, name string, answer http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), name)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(l, answer) }() // until the test closes l
	t.Cleanup(func() { _ = l.Close() })
	return socket
}

// TestPlanArguments: a line of docker network create is understood as docker understands it, and what the engine or docker itself would refuse
// is refused.
func TestPlanArguments(t *testing.T) {
	var asked admin.PlanRequest
	plugin := serve(t, "passthrough.sock", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/"+admin.PlanCall {
			asked = admin.PlanRequest{}
			_ = json.NewDecoder(r.Body).Decode(&asked)
			_ = json.NewEncoder(w).Encode(admin.Plan{Mode: "sriov", Devices: []string{"ens1f0"}, Pools: []admin.Pool{{Subnet: "10.1.0.0/24", Size: 254, Leased: 1}},
				Steps: []string{"7 vfs are created"}, Untried: []string{"whether it works"}, Refused: asked.Options["refuse"]})
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Status{})
	})
	engine := serve(t, "docker.sock", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/networks"):
			_ = json.NewEncoder(w).Encode([]map[string]string{{"ID": "1", "Name": "there"}})
		case r.URL.Path == "/plugins":
			_ = json.NewEncoder(w).Encode([]map[string]string{{"ID": filepath.Base(filepath.Dir(plugin)), "Name": "passthrough:latest"}})
		default:
			_, _ = w.Write([]byte("[]"))
		}
	})
	plan := func(line string) (string, error) {
		var out strings.Builder
		cmd := newCommand()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append([]string{"--socket", plugin, "--engine", engine, "plan"}, strings.Fields(line)...))
		err := cmd.Execute()
		return out.String(), err
	}

	const ours = "network create -d passthrough:latest --ipam-driver passthrough:latest "
	const text = "network    n, mode sriov, on ens1f0\npool       10.1.0.0/24, 253 of 254 addresses are free for containers\ngateway    none\n" +
		"then       7 vfs are created\nnot known  whether it works\n"
	for _, prefix := range []string{"", "docker "} {
		out, err := plan(prefix + ours + "--subnet=10.1.0.0/24,fd00::/64 --ip-range 10.1.0.128/25 --gateway fd00::1 --aux-address a=10.1.0.2 --aux-address=b=fd00::2 " +
			"--ipv6 --internal --attachable --scope local --label x=y -o netdevice=ens1f0 --opt=vfs=1,2 --ipam-opt exclude=10.1.0.9 n")
		if err != nil || out != text {
			t.Errorf("%v\n%s", err, out)
		}
		want := admin.PlanRequest{Options: map[string]string{"netdevice": "ens1f0", "vfs": "1,2"}, OwnIPAM: true,
			IPAMOptions: map[string]string{"exclude": "10.1.0.9"}, IPv4: true, IPv6: true, Internal: true, Subnets: []admin.Subnet{
				{Subnet: "10.1.0.0/24", Range: "10.1.0.128/25", Aux: map[string]string{"a": "10.1.0.2"}},
				{Subnet: "fd00::/64", Gateway: "fd00::1", Aux: map[string]string{"b": "fd00::2"}}}}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("the plugin was asked:\n%s", diff)
		}
	}
	for line, want := range map[string]string{
		ours + "-o refuse=why n":                                                        "refused: why",
		ours + "--subnet 10.1.0.0/24 there":                                             "network with name there already exists",
		ours + "-o netdevice=a, b n":                                                    "docker network create takes one name, here are 2: b n; a value with a space in it needs quotes",
		ours + "-o netdevice n":                                                         "-o netdevice: must be KEY=VALUE",
		ours + "--gateway 10.1.0.1 n":                                                   "no matching subnet for gateway 10.1.0.1",
		ours + "--subnet 10.1.0.0/24 --ip-range 10.2.0.0/25 n":                          "no matching subnet for range 10.2.0.0/25",
		ours + "--subnet 10.1.0.0/24 --aux-address a=10.2.0.1 n":                        "no matching subnet for aux-address 10.2.0.1",
		ours + "--subnet 10.1.0.0/24 --subnet 10.1.0.0/25 n":                            "multiple overlapping subnet configuration is not supported",
		ours + "--config-only n":                                                        "with --config-only no driver is asked, and any option is accepted; plan the network that is created from it",
		ours + "--config-from x n":                                                      "--config-from x: give the options of that network instead",
		ours + "--ingress n":                                                            "--ingress is for the driver overlay",
		"network create -o netdevice=a n":                                               `driver "bridge" is not this plugin, which the engine calls "passthrough:latest": say -d passthrough:latest`,
		"network create -d passthrough -o netdevice=a n":                                `driver "passthrough" is not this plugin, which the engine calls "passthrough:latest": say -d passthrough:latest`,
		"network create -d passthrough:latest --ipam-driver passthrough n":              `--ipam-driver "passthrough": the engine calls the plugin "passthrough:latest"`,
		ours + "--subnet 10.1.0.0/24 --gateway 10.1.0.1 --gateway 10.1.0.2 n":           "cannot configure multiple gateways (10.1.0.2, 10.1.0.1) for the same subnet (10.1.0.0/24)",
		ours + "--subnet 10.1.0.0/24 --ip-range 10.1.0.0/25 --ip-range 10.1.0.128/25 n": "cannot configure multiple ranges (10.1.0.128/25, 10.1.0.0/25) on the same subnet (10.1.0.0/24)",
	} {
		if _, err := plan(line); err == nil || err.Error() != want {
			t.Errorf("%s:\n%v\nwant %s", line, err, want)
		}
	}
}
