//go:build lab

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestCNI: a VF of the PF that has Docker's containers goes to a network namespace by CNI, as the usage of the original SR-IOV plugin shows:
// CNI_ARGS with PodID, HostIP and CORES, the interface under its exact name, its interrupts on those CPUs. DEL gives everything back. A namespace
// that ends without DEL gives the VF back with DEL afterwards.
func TestCNI(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.55.206.0/26", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	dir := t.TempDir()
	program, err := filepath.Abs("passthrough-cni")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "sriov")); err != nil {
		t.Fatal(err)
	}
	// The guest has no plugin for addresses.
	ipam := "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND != ADD ] || echo '" +
		`{"cniVersion": "0.2.0", "ip4": {"ip": "10.55.206.46/26", "gateway": "10.55.206.1"}}` + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "fixed"), []byte(ipam), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := `{"name": "mynet", "type": "sriov", "master": "` + pf + `", "mac": "02:00:00:00:00:42", "ipam": {"type": "fixed"}}`
	cni := func(command, args string) string {
		t.Helper()
		return Sh(t, "echo '"+conf+"' | CNI_PATH="+dir+" CNI_COMMAND="+command+" CNI_NETNS=/run/netns/1234 CNI_CONTAINERID=1234 CNI_IFNAME=eth1 "+
			"CNI_ARGS='"+args+"' "+dir+"/sriov")
	}
	for _, ends := range []bool{false, true} {
		Sh(t, "ip netns add 1234")
		out := cni("ADD", "IgnoreUnknown=1;PodID=1234;HostIP=10.55.206.20;CORES=0,1")
		if !strings.Contains(out, `"ip": "10.55.206.46/26"`) || !strings.Contains(out, `"gateway": "10.55.206.1"`) {
			t.Errorf("ADD prints %s", out)
		}
		inside := Sh(t, "ip netns exec 1234 ip address show eth1")
		if !strings.Contains(inside, "02:00:00:00:00:42") || !strings.Contains(inside, "10.55.206.46/26") {
			t.Errorf("inside: %s", inside)
		}
		_, pci, _ := strings.Cut(Sh(t, "ip netns exec 1234 sh -c 'mount -t sysfs sysfs /sys && cat /sys/class/net/eth1/device/uevent'"), "PCI_SLOT_NAME=")
		if placed := interrupts(t, strings.Fields(pci)[0]); placed != "0 1 0" {
			t.Errorf("interrupts go to %q", placed)
		}
		if who := Sh(t, "./passthroughctl who 02:00:00:00:00:42"); !strings.Contains(who, "cni 1234/eth1") {
			t.Errorf("who: %s", who)
		}
		if ends {
			Sh(t, "ip netns del 1234")
		}
		cni("DEL", "PodID=1234;HostIP=10.55.206.20")
		cni("DEL", "PodID=1234;HostIP=10.55.206.20")
		if !ends {
			Sh(t, "ip netns del 1234")
		}
		if status := Sh(t, "./passthroughctl status"); strings.Contains(status, "mynet") {
			t.Errorf("status after DEL: %s", status)
		}
	}
	Container(t, "two2", "--net", "n")
	Exec(t, "two2", "ip", "link", "show", "eth0")
}
