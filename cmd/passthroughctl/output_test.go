package main

import (
	"strings"
	"testing"
)

// TestTablesFit: the tables of busy hosts fit a terminal of 80 columns. Names are cut, reasons go on in further lines, and addresses, MACs
// and all other cells are whole.
func TestTablesFit(t *testing.T) {
	const mac, container, network = "02:bf:90:96:a1:27", "shop-frontend-web-1", "customer1_production"
	const reason = "vf 3 of enp1s0 (0000:02:10.6): set vlan 0: device or resource busy; the driver of the pf is resetting it"
	for name, c := range map[string]struct {
		cells [][]string
		whole []string
	}{
		"vfs": {[][]string{{"VF", "PCI", "STATE", "CONTAINER", "NETWORK", "VLAN", "MAC", "REASON"},
			{"enp129s0f0/63", "81:10.6", "quarantined", container, network, "4094", mac, reason}},
			[]string{"enp129s0f0/63", "81:10.6", "quarantined", "4094", mac}},
		"status": {[][]string{{"NETWORK", "MODE", "VLAN", "DEVICES", "IN USE", "SUBNETS", "CONTAINERS"},
			{network, "passthrough", "100", "enp129s0f0,enp129s0f1", "63", "194.168.1.0/24,fd00:194:168::/64", strings.Repeat(container+",", 20)}},
			[]string{"passthrough", "100"}},
		"pools": {[][]string{{"POOL", "NAME", "SUBNET", "GATEWAY", "LEASED", "AHEAD", "COOLDOWN", "NETWORKS"},
			{"v1:76533a277", "fabric-a-storage", "10.200.100.0/24", "10.200.100.254", "253/254", "16", "12", network + ",customer2"}},
			[]string{"10.200.100.254", "253/254"}},
		"leases": {[][]string{{"ADDRESS", "SUBNET", "KIND", "CONTAINER", "MAC", "SINCE"},
			{"194.168.100.254", "194.168.100.0/24", "prefetched", container, mac, "59m"}}, []string{"194.168.100.254", "prefetched", mac, "59m"}},
		"who": {[][]string{{"CONTAINER", "NETWORK", "DEVICE", "MAC", "ADDRESSES"},
			{container, network, "vf 63 of enp129s0f0 (0000:81:10.6)", mac, "194.168.1.2/24"}}, []string{mac, "194.168.1.2/24"}},
		"nics": {[][]string{{"NIC", "PCI", "MODEL", "DRIVER", "LINK", "VFS"},
			{"enp129s0f0np0", "81:00.0", "MT27800 Family [ConnectX-5~", "mlx5_core", "no carrier 100G", "127/127"}},
			[]string{"enp129s0f0np0", "81:00.0", "mlx5_core", "127/127"}},
		"doctor": {[][]string{{"RESULT", "CHECK", "FINDING"}, {"warn", "enp129s0f0", reason}}, []string{"warn", "enp129s0f0", "resetting it"}},
		"nodes": {[][]string{{"NODE", "NAME", "POOLS", "STATE", "LAST SEEN"},
			{"abcdefghijklmnopqrstuvwxyz", "rack12-host7.example.org", "12", "member", "59m ago"}}, []string{"abcdefghijklmnopqrstuvwxyz", "59m ago"}},
	} {
		text := fitted(c.cells, 80)
		for line := range strings.Lines(text) {
			if len(strings.TrimRight(line, "\n ")) > 80 {
				t.Errorf("%s: a line has %d characters:\n%s", name, len(line), text)
			}
		}
		for _, want := range c.whole {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s is not in\n%s", name, want, text)
			}
		}
		if strings.Contains(name, "vfs") || name == "doctor" {
			for word := range strings.FieldsSeq(reason) {
				if !strings.Contains(text, word) {
					t.Errorf("%s: %q of the reason is missing:\n%s", name, word, text)
				}
			}
		}
	}
	if got, want := fitted([][]string{{"A", "CONTAINER"}, {"1", "web1"}}, 80), "A  CONTAINER\n1  web1\n"; got != want {
		t.Errorf("a table that fits is\n%swant\n%s", got, want)
	}
}
