package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// TestParseRefuses: what cannot be meant is refused with the reason.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ conf, args, want string }{
		{`{`, "", "unexpected end of JSON input"},
		{`{"type": "sriov"}`, "", "the configuration has no name"},
		{`{"name": "n", "vlan": {"id": 5}}`, "", "key vlan: must be a text, a number, true, false, or a list of these"},
		{`{"name": "n", "master": "eth1", "netdevice": "eth2"}`, "", "key netdevice: netdevice is there as well"},
		{`{"name": "n"}`, "CORE=1", "CNI_ARGS: CORE is not known; the names are CORES, HostIP, IgnoreUnknown, PodID, mac, vf and vlan"},
		{`{"name": "n"}`, "CORES", `CNI_ARGS: "CORES" is not NAME=VALUE`},
		{`{"name": "n", "vf": 3, "deviceID": "0000:03:10.2"}`, "", "vf 3 is not the deviceID 0000:03:10.2"},
		{`{"name": "n", "deviceID": "0000:ff:10.2"}`, "", "deviceID 0000:ff:10.2: is not a vf of this machine; without one, master names the device"},
	} {
		if _, err := parse([]byte(c.conf), c.args); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s with %q: %v\nwant %s", c.conf, c.args, err, c.want)
		}
	}
}
