package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// gpuHost returns a machine with two processors, three GPUs with a NIC each behind their switch, the first NIC with two ports, and NICs that are
// near to none of the GPUs, have no link, or no VFs.
func gpuHost(t *testing.T) *hw.Host {
	k := hwtest.New(t)
	for i, f := range []struct {
		name, pci, behind string
		node, vfs         int
		unplugged         bool
	}{
		{name: "eno1", pci: "0000:04:00.0", behind: "pci0000:00/0000:00:1c.0", vfs: 7},
		{name: "eno2", pci: "0000:05:00.0", behind: "pci0000:00/0000:00:1d.0"},
		{name: "ens1f0", pci: "0000:13:00.0", behind: "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0", vfs: 8},
		{name: "ens1f1", pci: "0000:13:00.1", behind: "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0", vfs: 8},
		{name: "ens2f0", pci: "0000:23:00.0", behind: "pci0000:20/0000:20:01.0/0000:21:00.0/0000:22:00.0", vfs: 8},
		{name: "ens3f0", pci: "0000:93:00.0", behind: "pci0000:90/0000:90:01.0/0000:91:00.0/0000:92:00.0", node: 1, vfs: 8},
		{name: "ens3f1", pci: "0000:93:00.1", behind: "pci0000:90/0000:90:01.0/0000:91:00.0/0000:92:00.0", node: 1, vfs: 8, unplugged: true},
	} {
		k.AddPF(hwtest.PF{Name: f.name, PCI: f.pci, Behind: f.behind, NUMANode: f.node, TotalVFs: f.vfs, Up: true, Unplugged: f.unplugged,
			MAC: hw.MAC(fmt.Sprintf("02:00:00:00:00:%02x", i+1))})
	}
	k.AddGPU("0000:15:00.0", "pci0000:10/0000:10:01.0/0000:11:00.0/0000:14:00.0", "0x030200", 0)
	k.AddGPU("0000:25:00.0", "pci0000:20/0000:20:01.0/0000:21:00.0/0000:24:00.0", "0x030200", 0)
	k.AddGPU("0000:95:00.0", "pci0000:90/0000:90:01.0/0000:91:00.0/0000:94:00.0", "0x120000", 1)
	k.AddVeth("veth0", "veth1")
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// TestRails: which NICs are rails. With GPUs or NUMA nodes there is one for each, and more of them only if more are wanted.
func TestRails(t *testing.T) {
	host := gpuHost(t)
	for _, c := range []struct {
		flags railFlags
		want  string
	}{
		{railFlags{near: "gpu"}, "ens1f0 ens2f0 ens3f0"},
		{railFlags{near: "GPU", count: 2}, "ens1f0 ens2f0"},
		{railFlags{near: "gpu", count: 5}, "ens1f0 ens2f0 ens3f0 ens1f1 eno1"},
		{railFlags{near: "gpu", netdevice: "ens1f1,ens3*"}, "ens1f1 ens3f0"},
		{railFlags{near: "numa"}, "eno1 ens3f0"},
		{railFlags{near: "numa", count: 4, netdevice: "ens*"}, "ens1f0 ens3f0 ens1f1 ens3f1"},
		{railFlags{near: "0000:95:00.0"}, "ens3f0"},
		{railFlags{near: "95:00.0", count: 3}, "ens3f0 eno1 ens1f0"},
		{railFlags{near: "none"}, "eno1 ens1f0 ens1f1 ens2f0 ens3f0"},
		{railFlags{near: "none", netdevice: "driver:igb", count: 1}, "eno1"},
		{railFlags{near: "none", mode: "macvlan", netdevice: "veth1, eno2,veth0,veth1"}, "eno2 veth0 veth1"},
	} {
		c.flags.vf, c.flags.mode = -1, orSRIOV(c.flags.mode)
		rails, err := c.flags.plan(host)
		var names []string
		for i, r := range rails {
			names = append(names, r.NIC)
			if want := fmt.Sprintf("rail%d", i); r.Name != want {
				t.Errorf("%+v: %s is %s, want %s", c.flags, r.NIC, r.Name, want)
			}
		}
		if got := strings.Join(names, " "); got != c.want || err != nil {
			t.Errorf("%+v: %s, %v; want %s", c.flags, got, err, c.want)
		}
	}
}

func orSRIOV(mode string) string {
	if mode == "" {
		return "sriov"
	}
	return mode
}

// TestRailTable: docs/hpc.md shows the choice on this machine.
func TestRailTable(t *testing.T) {
	f := railFlags{near: "gpu", mode: "sriov", subnet: "10.10.0.0/16", size: 24, vf: -1}
	rails, err := f.plan(gpuHost(t))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := write(&out, "table", rails, railColumns()); err != nil {
		t.Fatal(err)
	}
	docs.Table(t, "../../docs/hpc.md", "```text\n", "```", out.String())
}

// TestRailErrors: what cannot be is refused before anything is printed.
func TestRailErrors(t *testing.T) {
	host := gpuHost(t)
	for _, c := range []struct {
		change func(*railFlags)
		want   string
	}{
		{func(f *railFlags) { f.near = "far" }, "--near far: must be gpu, numa, none or a PCI address"},
		{func(f *railFlags) { f.near = "ff:00.0" }, "0000:ff:00.0: no such pci device"},
		{func(f *railFlags) { f.count = 6 }, "--count 6: there are 5 NICs to choose from: eno1, ens1f0, ens1f1, ens2f0, ens3f0"},
		{func(f *railFlags) { f.count = -1 }, "--count and --vf cannot be negative"},
		{func(f *railFlags) { f.mode = "macvlan" }, "--netdevice: missing; with --mode macvlan say which devices, such as --netdevice eth1,eth2"},
		{func(f *railFlags) { f.mode, f.vf = "macvlan", 1 }, "--vf: with --mode macvlan there are no vfs to choose from"},
		{func(f *railFlags) { f.cdi = true }, "--cdi: say also which vf, such as --vf 0: the engine reads the files before a vf is chosen"},
		{func(f *railFlags) { f.compose = true }, "--subnet: missing; say what the subnets of the rails are taken from, such as --subnet 10.10.0.0/16"},
		{func(f *railFlags) { f.subnet = "10.10.0.1/16" }, "--subnet 10.10.0.1/16: must be an IPv4 subnet in CIDR form"},
		{func(f *railFlags) { f.subnet = "fd00::/48" }, "--subnet fd00::/48: must be an IPv4 subnet in CIDR form"},
		{func(f *railFlags) { f.subnet = "10.10.0.0/22" }, "--size 24: 10.10.0.0/22 has no 5 subnets of that length"},
		{func(f *railFlags) { f.subnet, f.host = "10.10.0.0/16", "0/4" }, "--host 0/4: must be a number and how many hosts there are, such as 3/16"},
		{func(f *railFlags) { f.subnet, f.host = "10.10.0.0/16", "1/100" }, "--host 1/100: a /24 has no part for each of 100 hosts"},
		{func(f *railFlags) { f.options = []string{"mtu"} }, "-o mtu: must be KEY=VALUE"},
		{func(f *railFlags) { f.netdevice = "ens9f0" }, "ens9f0: no such device"},
	} {
		f := railFlags{near: "none", mode: "sriov", size: 24, vf: -1}
		c.change(&f)
		if _, err := f.plan(host); err == nil || err.Error() != c.want {
			t.Errorf("error is\n%v\nwant\n%s", err, c.want)
		}
	}
}

// TestRailCommands: the commands for the networks of two rails, with all that they can have.
func TestRailCommands(t *testing.T) {
	f := railFlags{near: "gpu", mode: "sriov", count: 2, subnet: "10.10.0.0/16", size: 24, host: "3/4", vf: 1, cdi: true, options: []string{"mtu=9000", "ethtool=gro=off,tso=on"}}
	rails, err := f.plan(gpuHost(t))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := f.printCommands(&out, "passthrough:latest", rails); err != nil {
		t.Fatal(err)
	}
	const options = `"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_ignore=1,net.ipv4.conf.IFNAME.arp_announce=2,` +
		`net.ipv4.conf.IFNAME.rp_filter=2","driver-opt=vf=1"`
	want := `# rail0: ens1f0 (0000:13:00.0), NUMA node 0; 0000:15:00.0: behind the same root port
docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet=10.10.0.0/24 --ip-range=10.10.0.128/26 -o netdevice=ens1f0 -o ifname=rail0 -o cdi=rail0 -o mtu=9000 -o ethtool=gro=off,tso=on rail0
# rail1: ens2f0 (0000:23:00.0), NUMA node 0; 0000:25:00.0: behind the same root port
docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet=10.10.1.0/24 --ip-range=10.10.1.128/26 -o netdevice=ens2f0 -o ifname=rail1 -o cdi=rail1 -o mtu=9000 -o ethtool=gro=off,tso=on rail1
# docker run --ulimit memlock=-1 --network 'name=rail0,` + options + `' --device mellanox.com/rail0=vf1 --network 'name=rail1,` + options + `' --device mellanox.com/rail1=vf1 IMAGE
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for text, want := range map[string]string{"routes=10.0.0.0/8 via 10.10.0.1": "'routes=10.0.0.0/8 via 10.10.0.1'", "a='": `'a='\'''`} {
		if got := quoted(text); got != want {
			t.Errorf("%s in a shell's command is %s, want %s", text, got, want)
		}
	}
}

// TestRailCompose: a Compose file for a rail, with what two more options add to it.
func TestRailCompose(t *testing.T) {
	f := railFlags{near: "none", mode: "macvlan", netdevice: "veth0,veth1", subnet: "10.10.0.0/30", size: 31, vf: -1, cdi: true, host: "2/2"}
	host := gpuHost(t)
	if _, err := f.plan(host); err == nil || err.Error() != "--size 31: 10.10.0.0/30 has no 2 subnets of that length" {
		t.Errorf("subnets of one address: %v", err)
	}
	f.subnet, f.size, f.numbered = "10.10.0.0/16", 24, true
	rails, err := f.plan(host)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := f.printCompose(&out, "passthrough:latest", rails[:1]); err != nil {
		t.Fatal(err)
	}
	want := `services:
  job:
    image: ${IMAGE:-busybox}
    command: sleep 1000000
    stop_signal: SIGKILL
    ulimits:
      memlock: -1 # RDMA programs lock their buffers
    # volumes: ["/dev/hugepages:/dev/hugepages"]
    devices:
      - mellanox.com/rail0=nic
    networks:
      rail0:
        driver_opts:
          com.docker.network.endpoint.sysctls: 'net.ipv4.conf.IFNAME.arp_ignore=1,net.ipv4.conf.IFNAME.arp_announce=2,net.ipv4.conf.IFNAME.rp_filter=2'

networks:
  # rail0: veth0
  rail0:
    driver: passthrough:latest
    driver_opts:
      netdevice: 'veth0'
      prefix: 'rail0_'
      mode: 'macvlan'
      cdi: 'rail0'
    ipam:
      driver: passthrough:latest
      config:
        - subnet: 10.10.0.0/24
          ip_range: 10.10.0.128/25
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
