package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
)

// TestHostRules: network software that runs on the host without its rule is a warning, with the command that installs the rule.
func TestHostRules(t *testing.T) {
	file := &fstest.MapFile{}
	for _, c := range []struct {
		host fstest.MapFS
		want []string
	}{
		{fstest.MapFS{}, nil},
		{fstest.MapFS{"run/NetworkManager/devices/1": file}, []string{"install -m 644 scripts/host-rules/71-passthrough-vfs.rules " +
			"/etc/udev/rules.d/71-passthrough-vfs.rules"}},
		{fstest.MapFS{"run/NetworkManager/devices/1": file, "etc/udev/rules.d/71-passthrough-vfs.rules": file}, nil},
		{fstest.MapFS{"run/systemd/netif/state": file, "etc/udev/rules.d/71-passthrough-vfs.rules": file}, []string{
			"install -m 644 scripts/host-rules/05-passthrough-vfs.network /etc/systemd/network/05-passthrough-vfs.network"}},
	} {
		var remedies []string
		for _, f := range checkHostRules(c.host) {
			if f.Severity != warning {
				t.Errorf("%+v is no warning", f)
			}
			remedies = append(remedies, f.Remedy)
		}
		if diff := cmp.Diff(c.want, remedies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", fmt.Sprint(c.host), diff)
		}
	}
}

// TestNetworksFit: a NIC whose MTU is below that of a network is a failure, with the command that raises it; the host in the VLAN of a network of
// VFs a warning. Networks of other NICs, and those that hand over a whole device, do not count.
func TestNetworksFit(t *testing.T) {
	nic := hw.NIC{Netdev: hw.Netdev{Link: hw.Link{Name: "enp1s0", MTU: 1500}}}
	network := func(name, mode string, options ...string) admin.Network {
		n := admin.Network{Name: name, Mode: mode, Devices: []string{"enp1s0"}, Options: map[string]string{}}
		for i := 0; i < len(options); i += 2 {
			n.Options[options[i]] = options[i+1]
		}
		return n
	}
	other := network("other", "sriov", "mtu", "9000")
	other.Devices = []string{"enp2s0"}
	got := checkNetworks(nic, map[int]string{100: "enp1s0.100", 300: "enp1s0.300"}, []admin.Network{other, network("jumbo", "sriov", "mtu", "9000"), network("small", "macvlan", "mtu", "1400"),
		network("whole", "passthrough", "mtu", "9000"), network("customer1", "sriov", "vlan", "100"), network("customer2", "sriov", "vlan", "200")})
	want := []finding{
		{failure, "enp1s0", "its mtu is 1500, and network jumbo has 9000", "ip link set enp1s0 mtu 9000"},
		{warning, "enp1s0", "the host has enp1s0.100 in vlan 100 of network customer1", "give the host or the network another VLAN, unless the host is to be in it"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStoreIsChecked: a server of an etcd that does not answer or is almost full is a warning, one with an alarm a failure.
func TestStoreIsChecked(t *testing.T) {
	nodes := admin.Nodes{Servers: []admin.Server{{Endpoint: "n1:2379", Version: "3.6.0"}, {Endpoint: "n2:2379", Error: "refused"},
		{Endpoint: "n3:2379", Alarms: []string{"NOSPACE"}}, {Endpoint: "n4:2379", InUse: 9 << 20, Quota: 10 << 20}}}
	v := &view{plugin: admin.NewClient(serve(t, "p.sock", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(nodes) }))}
	var got []string
	for _, f := range v.checkStore(t.Context(), map[string]string{"STORE": "etcd://n1:2379,n2:2379"}) {
		got = append(got, f.Severity+" "+f.Text)
	}
	want := []string{"ok n1:2379: version 3.6.0", "warn n2:2379: refused", "fail n3:2379: alarm NOSPACE", "warn n4:2379: 9.0 MiB of its quota of 10.0 MiB are in use"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := v.checkStore(t.Context(), map[string]string{"STORE": "bolt"}); got != nil {
		t.Errorf("without an etcd: %v", got)
	}
}

// TestSpecsAreRead: specs in a folder in which the engine does not look are a warning, with what to do; a link to the folder is the folder.
func TestSpecsAreRead(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		folder     string
		dirs       []string
		severity   string
		text, mend string
	}{
		{link, []string{"/etc/cdi", dir}, healthy, "specs are in " + link + ", where the engine looks", ""},
		{"/etc/cdi/", []string{"/etc/cdi"}, healthy, "specs are in /etc/cdi/, where the engine looks", ""},
		{"/etc/x", []string{"/etc/cdi", "/run/cdi"}, warning, "specs are in /etc/x, and the engine looks in /etc/cdi, /run/cdi",
			"set cdi.source to a folder of the engine's; docs/cdi.md says how"},
		{"/etc/cdi", nil, warning, "specs are in /etc/cdi, and the engine reads none",
			`Docker 28.2 or newer, or 25 with {"features": {"cdi": true}} in daemon.json`},
		{"", []string{"/etc/cdi"}, warning, "the plugin has no folder for the specs of network a, b, as after an upgrade: they do not follow its devices",
			"set cdi.source again; docs/cdi.md says how"},
	} {
		if diff := cmp.Diff(finding{c.severity, "cdi", c.text, c.mend}, specFinding(c.folder, c.dirs, []string{"a", "b"})); diff != "" {
			t.Errorf("%q in %q (-want +got):\n%s", c.folder, c.dirs, diff)
		}
	}
}

// TestDoctorHealth: a health reporter of a NIC that is in error is a failure, with the commands that show and end it; one that has recovered is none.
func TestDoctorHealth(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1f0np0", PCI: "0000:01:00.0", Behaviour: hwtest.MLX5(), Driver: "mlx5_core", TotalVFs: 2, Up: true,
		Reporters: []hw.HealthReporter{{Name: "tx", Errors: 1, Recoveries: 1, AutoRecover: true}, {Name: "fw_fatal", Failed: true, Errors: 3, Recoveries: 2,
			AutoRecover: true}}})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "test"})
	if err != nil {
		t.Fatal(err)
	}
	found, err := checkNIC(host, hw.NIC{Netdev: hw.Netdev{Link: hw.Link{Name: "ens1f0np0", Up: true, Carrier: true}}})
	want := []finding{{failure, "ens1f0np0", "its driver reports that fw_fatal is in error, and was not able to recover by itself (errors 3, recoveries 2)",
		"devlink health diagnose pci/0000:01:00.0 reporter fw_fatal; devlink health recover pci/0000:01:00.0 reporter fw_fatal"}}
	if diff := cmp.Diff(want, found); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
