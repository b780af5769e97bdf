package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestParse: keys of sriov-cni and our own options, CNI_ARGS, and what a runtime chooses.
func TestParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf, args   string
		options, own map[string]string
		pod          string
	}{
		"the original's": {
			conf:    `{"name": "mynet", "type": "sriov", "master": "eth1", "ipam": {"type": "txipam", "remote": "https://127.0.0.1:10000"}}`,
			args:    "IgnoreUnknown=1;PodID=1234;HostIP=10.55.206.20;CORES=1,2,3,4",
			options: map[string]string{"netdevice": "eth1"}, own: map[string]string{"cores": "1,2,3,4"}, pod: "1234",
		},
		"sriov-cni's": {
			conf: `{"cniVersion": "1.0.0", "name": "n", "type": "sriov", "master": "eth1", "vlan": 1000, "vlanQoS": 5, "vlanProto": "802.1ad", "mac": "CA:FE:C0:FF:EE:00",
				"spoofchk": "on", "trust": "off", "link_state": "enable", "min_tx_rate": 100, "max_tx_rate": 16777215, "logLevel": "debug", "logFile": "/tmp/x"}`,
			options: map[string]string{"netdevice": "eth1", "vlan": "1000", "vlan_qos": "5", "vlan_proto": "802.1ad", "spoofchk": "on", "trust": "off",
				"link_state": "enable", "min_tx_rate": "100", "max_tx_rate": "16777215"},
			own: map[string]string{"mac": "CA:FE:C0:FF:EE:00"},
		},
		"our own": {
			conf:    `{"name": "n", "netdevice": ["eth1", "eth2"], "privileged": true, "bond": "active-backup", "mtu": 9000}`,
			options: map[string]string{"netdevice": "eth1,eth2", "privileged": "yes", "bond": "active-backup", "mtu": "9000"}, own: map[string]string{},
		},
		"numbers that are none of an option": {
			conf:    `{"name": "n", "netdevice": "eth1", "mtu": 1500.5, "vlan": 1e3}`,
			options: map[string]string{"netdevice": "eth1", "mtu": "1500.5", "vlan": "1e3"}, own: map[string]string{},
		},
		"a vf by CNI_ARGS": {
			conf: `{"name": "n", "master": "eth1", "vlan": 5}`, args: "vf=0;vlan=6;mac=02:00:00:00:00:42",
			options: map[string]string{"netdevice": "eth1", "vlan": "5"}, own: map[string]string{"vf": "0", "vlan": "6", "mac": "02:00:00:00:00:42"},
		},
		"a runtime's": {
			conf: `{"name": "n", "master": "eth1", "mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "02:00:00:00:00:42", "deviceID": "0000:03:10.2"}}`,
			args: "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;X=y", pod: "default/web-0",
			options: map[string]string{"netdevice": "eth1"}, own: map[string]string{"mac": "02:00:00:00:00:42", "vf": "0000:03:10.2"},
		},
	} {
		got, err := parse([]byte(c.conf), c.args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.options, got.options) + cmp.Diff(c.own, got.own) + cmp.Diff(c.pod, got.pod); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// TestParseIPAM: what is said of the plugin's own pools, and which addresses are asked for.
func TestParseIPAM(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf, args string
		want       *admin.IPAM
		requested  []string
	}{
		"another plugin's": {conf: `{"name": "n", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}, "runtimeConfig": {"ips": ["10.1.0.7"]}}`, args: "IP=10.1.0.7"},
		"none":             {conf: `{"name": "n"}`},
		"a pool alone": {conf: `{"name": "n", "ipam": {"type": "passthrough", "pool": "lan"}}`,
			want: &admin.IPAM{Options: map[string]string{"pool": "lan"}}},
		"one subnet": {
			conf: `{"name": "n", "ipam": {"type": "passthrough", "subnet": "10.1.0.0/16", "range": "10.1.2.0/24", "gateway": "10.1.0.1", "exclude": ["10.1.2.9", "10.1.2.10"], "prefetch": 2}}`,
			args: "IP=10.1.2.7",
			want: &admin.IPAM{Subnets: []admin.Subnet{{Subnet: "10.1.0.0/16", Range: "10.1.2.0/24", Gateway: "10.1.0.1"}},
				Options: map[string]string{"pool": "cni.n", "exclude": "10.1.2.9,10.1.2.10", "prefetch": "2"}},
			requested: []string{"10.1.2.7"},
		},
		"both families": {
			conf: `{"name": "n", "ipam": {"type": "passthrough", "subnet": ["10.1.0.0/16", "fd00::/64"], "gateway": ["fd00::1"], "routes": [{"dst": "::/0"}]},
				"args": {"cni": {"ips": ["10.1.0.8/16"]}}, "runtimeConfig": {"ips": ["10.1.0.7/16", "fd00::7"]}}`,
			want:      &admin.IPAM{Subnets: []admin.Subnet{{Subnet: "10.1.0.0/16"}, {Subnet: "fd00::/64", Gateway: "fd00::1"}}, Options: map[string]string{"pool": "cni.n"}},
			requested: []string{"10.1.0.7/16", "fd00::7"},
		},
		"the option gateway": {conf: `{"name": "n", "ipam": {"type": "passthrough", "subnet": "10.1.0.0/16", "gateway": "none"}, "args": {"cni": {"ips": ["10.1.0.8"]}}}`,
			want:      &admin.IPAM{Subnets: []admin.Subnet{{Subnet: "10.1.0.0/16"}}, Options: map[string]string{"pool": "cni.n", "gateway": "none"}},
			requested: []string{"10.1.0.8"}},
	} {
		got, err := parse([]byte(c.conf), c.args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.pools) + cmp.Diff(c.requested, got.requested); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// shown returns the configuration that the manual shows below a heading.
func shown(t *testing.T, heading string) []byte {
	t.Helper()
	text := strings.Join(docs.Commands(t, "../../docs/cni.md", heading), " ")
	var first json.RawMessage
	if err := json.NewDecoder(strings.NewReader(text[max(0, strings.Index(text, "{")):])).Decode(&first); err != nil {
		t.Fatalf("%s: %v", heading, err)
	}
	return first
}

// TestManual: the configurations that the manual shows can be read, and mean what the text around them says.
func TestManual(t *testing.T) {
	t.Parallel()
	for heading, want := range map[string]*admin.IPAM{
		"A network": nil,
		"Addresses of the plugin": {Subnets: []admin.Subnet{{Subnet: "10.55.206.0/26", Range: "10.55.206.32/27", Gateway: "10.55.206.1"}},
			Options: map[string]string{"pool": "lan"}},
		"Multus": {Subnets: []admin.Subnet{{Subnet: "10.55.207.0/24"}}, Options: map[string]string{"pool": "cni.fast", "exclude": "10.55.207.1-10.55.207.9"}},
	} {
		var list struct {
			Name    string           `json:"name"`
			Plugins []map[string]any `json:"plugins"`
		}
		text := shown(t, heading)
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatalf("%s: %v", heading, err)
		}
		if len(list.Plugins) == 1 {
			list.Plugins[0]["name"] = list.Name // as a runtime does
			text, _ = json.Marshal(list.Plugins[0])
		}
		c, err := parse(text, "")
		if err != nil {
			t.Fatalf("%s: %v", heading, err)
		}
		if diff := cmp.Diff(want, c.pools) + cmp.Diff("enp1s0", c.options["netdevice"]); diff != "" {
			t.Errorf("%s:\n%s", heading, diff)
		}
	}
}

// TestManualRuntimes: what the manual says of runtimes. Each names the network of a configuration that is shown, and what they pass on is
// taken: nerdctl in CNI_ARGS (pkg/ocihook, --ip and --mac-address), Nomad with names of its own there, Multus as runtimeConfig.
func TestManualRuntimes(t *testing.T) {
	t.Parallel()
	lan := shown(t, "Addresses of the plugin")
	var list struct {
		Name    string
		Plugins []map[string]any
	}
	if err := json.Unmarshal(lan, &list); err != nil {
		t.Fatal(err)
	}
	for heading, names := range map[string]string{"nerdctl": "--network " + list.Name + " ", "Nomad": `mode = "cni/` + list.Name + `"`} {
		if text := strings.Join(docs.Commands(t, "../../docs/cni.md", heading), " "); !strings.Contains(text, names) {
			t.Errorf("%s does not name the network: %s", heading, text)
		}
	}
	one := list.Plugins[0]
	one["name"] = list.Name
	for args, want := range map[string]struct {
		ips []string
		mac string
	}{
		"IgnoreUnknown=1;IP=10.55.206.60;MAC=02:00:00:00:00:42": {[]string{"10.55.206.60"}, "02:00:00:00:00:42"},
		"IgnoreUnknown=true;NOMAD_JOB_ID=web;NOMAD_ALLOC_ID=1":  {},
	} {
		text, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parse(text, args)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.ips, c.requested) + cmp.Diff(want.mac, c.own["mac"]); diff != "" {
			t.Errorf("%s:\n%s", args, diff)
		}
	}
	_, annotation, _ := strings.Cut(docs.Commands(t, "../../docs/cni.md", "Multus")[len(docs.Commands(t, "../../docs/cni.md", "Multus"))-1], ": ")
	var selections []struct {
		Name, MAC string
		IPs       []string
	}
	if err := json.Unmarshal([]byte(strings.Trim(annotation, "'")), &selections); err != nil || len(selections) != 1 {
		t.Fatalf("%s: %+v, %v", annotation, selections, err)
	}
	var fast map[string]any
	if err := json.Unmarshal(shown(t, "Multus"), &fast); err != nil || fast["name"] != selections[0].Name {
		t.Fatalf("%v, %v", fast, err)
	}
	fast["runtimeConfig"] = map[string]any{"ips": selections[0].IPs, "mac": selections[0].MAC}
	text, err := json.Marshal(fast)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(text, "IgnoreUnknown=true;K8S_POD_NAME=web-0")
	if err != nil || !slices.Equal(c.requested, selections[0].IPs) || c.own["mac"] != selections[0].MAC {
		t.Errorf("asked for %v and %v, %v", c.requested, c.own, err)
	}
}

// TestParseRefuses: what cannot be meant is refused with the reason.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ conf, args, want string }{
		{`{`, "", "unexpected end of JSON input"},
		{`{"type": "sriov"}`, "", "the configuration has no name"},
		{`{"name": "n", "vlan": {"id": 5}}`, "", "key vlan: must be a text, a number, true, false, or a list of these"},
		{`{"name": "n", "master": "eth1", "netdevice": "eth2"}`, "", "key netdevice: netdevice is there as well"},
		{`{"name": "n"}`, "CORE=1", "CNI_ARGS: CORE is not known; the names are CORES, HostIP, IP with ipam, IgnoreUnknown, PodID, mac, vf and vlan"},
		{`{"name": "n"}`, "CORES", `CNI_ARGS: "CORES" is not NAME=VALUE`},
		{`{"name": "n"}`, "IP=10.1.0.7", "CNI_ARGS: IP is not known; the names are CORES, HostIP, IP with ipam, IgnoreUnknown, PodID, mac, vf and vlan"},
		{`{"name": "n", "ipam": {"type": "passthrough", "subnet": "10.1.0.0/16", "range": "10.2.0.0/24"}}`, "", "ipam: range 10.2.0.0/24: each must be in a subnet of its own"},
		{`{"name": "n", "ipam": {"type": "passthrough", "subnet": "10.1.0.0/16", "gateway": ["10.1.0.1", "10.1.0.2"]}}`, "", "ipam: gateway 10.1.0.2: each must be in a subnet of its own"},
		{`{"name": "n", "ipam": {"type": "passthrough", "exclude": {}}}`, "", "ipam: key exclude: must be a text, a number, true, false, or a list of these"},
		{`{"name": "n", "vf": 3, "deviceID": "0000:03:10.2"}`, "", "vf 3 is not the deviceID 0000:03:10.2"},
		{`{"name": "n", "deviceID": "0000:ff:10.2"}`, "", "deviceID 0000:ff:10.2: is not a vf of this machine; without one, master names the device"},
	} {
		if _, err := parse([]byte(c.conf), c.args); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s with %q: %v\nwant %s", c.conf, c.args, err, c.want)
		}
	}
}
