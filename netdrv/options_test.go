package netdrv_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// known lists the names of the options of some scopes as errors do.
func known(scopes ...option.Scope) string {
	var names []string
	for _, o := range option.Options() {
		if slices.Contains(scopes, o.For) {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// deviceValues are the values that the option netdevice allows, in words.
const deviceValues = "name or PCI address; for PFs also several, a pattern of names, vendor:device, driver:NAME"

// TestOptionErrors: every error of the options, word for word. Neither the host nor the ledger changes.
func TestOptionErrors(t *testing.T) {
	const (
		vlans    = "; allowed: 0 to 4094, or keep"
		offloads = "; allowed: FEATURE=on or FEATURE=off, separated by commas, such as gro=off,tso=on"
		cpus     = "; allowed: CPUs such as 2,4-7, numa or none"
	)
	for _, c := range []struct {
		options []string
		want    string
	}{
		{nil, "option netdevice: missing; say which device to use: -o netdevice=NAME"},
		{[]string{"netdevice="}, "option netdevice: has no value; allowed: " + deviceValues},
		{[]string{"netdevice=ens1f0", "vlna=5"},
			`option "vlna": unknown; did you mean vlan?`},
		{[]string{"netdevice=ens1f0", "vlan=4095"}, `option vlan: "4095" is not allowed` + vlans},
		{[]string{"netdevice=ens1f0", "vlan=-1"}, `option vlan: "-1" is not allowed` + vlans},
		{[]string{"netdevice=ens1f0", "vlan=ten"}, `option vlan: "ten" is not allowed` + vlans},
		{[]string{"netdevice=ens1f0", "vlan="}, "option vlan: has no value" + vlans},
		{[]string{"netdevice=ens1f0", "mode=bridge"},
			`option mode: "bridge" is not allowed; allowed: sriov, passthrough, macvlan, ipvlan or ipoib`},
		{[]string{"netdevice=ens1f0", "mode=macvlan", "macvlan_mode=passthru"},
			`option macvlan_mode: "passthru" is not allowed; allowed: bridge, private or vepa`},
		{[]string{"netdevice=ens1f0", "mode=macvlan", "ipvlan_mode=l3"},
			"option ipvlan_mode: not for mode=macvlan, only for mode=ipvlan"},
		{[]string{"netdevice=ens1f0", "mode=ipvlan", "ipvlan_mode=bridge"},
			`option ipvlan_mode: "bridge" is not allowed; allowed: l2, l3 or l3s`},
		{[]string{"parent=ens1f0"}, "option parent: not for mode=sriov, only for mode=macvlan, ipvlan"},
		{[]string{"parent=ens1f0", "mode=passthrough"}, "option parent: not for mode=passthrough, only for mode=macvlan, ipvlan"},
		{[]string{"parent=", "mode=macvlan"}, "option parent: has no value; allowed: as for netdevice"},
		{[]string{"netdevice=ens1f0", "parent=ens2f0", "mode=macvlan"},
			"option parent: ens2f0 is not netdevice=ens1f0; both name the device that has the children: give one of them"},
		{[]string{"netdevice=ens1f0", "mode=ipoib", "pkey=0x8000"},
			`option pkey: "0x8000" is not allowed; allowed: 0x0001 to 0x7fff, or 0x8001 to 0xffff`},
		{[]string{"netdevice=ens1f0", "mode=ipoib", "pkey=0x10001"},
			`option pkey: "0x10001" is not allowed; allowed: 0x0001 to 0x7fff, or 0x8001 to 0xffff`},
		{[]string{"netdevice=ens1f0", "mode=ipoib"},
			"option netdevice: ens1f0 is of type ether; mode=ipoib is for devices of type infiniband"},
		{[]string{"netdevice=ens1f0", "privileged=maybe"},
			`option privileged: "maybe" is not allowed; allowed: yes or no (also 1, true, on; 0, false, off)`},
		{[]string{"netdevice=ens1f0", "numvfs=0"}, `option numvfs: "0" is not allowed; allowed: 1 to what the NIC can`},
		{[]string{"netdevice=ens1f0", "numvfs=8"}, "option numvfs: 8 is not possible: ens1f0 (0000:01:00.0) can have 7 vfs"},
		{[]string{"netdevice=ens1f0", "prefix=a/b"},
			`option prefix: "a/b" is not allowed; allowed: up to 10 letters, digits, _, - and .`},
		{[]string{"netdevice=ens1f0", "gateway=10.0.0.1"}, `option gateway: "10.0.0.1" is not allowed; allowed: none or auto`},
		{[]string{"netdevice=ens1f0", "mode=passthrough", "vlan=7"},
			"option vlan: not for mode=passthrough, only for mode=sriov, macvlan, ipvlan"},
		{[]string{"netdevice=ens1f0", "bond=802.3ad", "policy=pack"},
			"option policy: not with bond=802.3ad, which takes a vf of each pf"},
		{[]string{"netdevice=ens1f0", "driver=vfio-pci", "queues=2"}, "option queues: not with driver=vfio-pci, which leaves the container no netdev; the " +
			"program sets that itself"},
		{[]string{"netdevice=ens1f0", "driver=vfio-pci", "mtu=1400"}, "option mtu: not with driver=vfio-pci, which leaves the container no netdev; the " +
			"program sets that itself"},
		{[]string{"netdevice=ens1f0", "driver=vfio-pci", "bond=802.3ad"}, "option bond: not with driver=vfio-pci, which leaves the container no netdev; the " +
			"program sets that itself"},
		{[]string{"netdevice=ens1f0", "driver=uio_pci_generic"}, "option driver: \"uio_pci_generic\" is not allowed; allowed: vfio-pci"},
		{[]string{"netdevice=ens1f0", "force=yes"}, "option force: has no effect for mode=sriov without driver=vfio-pci"},
		{[]string{"netdevice=ens1f0", "bond=802.3ad", "numa=auto"}, "option numa: not with bond=802.3ad, which takes a vf of each pf"},
		{[]string{"netdevice=ens1f0", "bond=802.3ad", "near=gpu"}, "option near: not with bond=802.3ad, which takes a vf of each pf"},
		{[]string{"netdevice=ens1f0", "mode=passthrough", "near=gpu"}, "option near: not for mode=passthrough, only for mode=sriov"},
		{[]string{"netdevice=ens1f0", "near=3b:00"}, `option near: "3b:00" is not allowed; allowed: PCI address, gpu or none`},
		{[]string{"netdevice=ens1f0", "VLAN=7", "vlan=8"}, "option vlan: given twice"},
		{[]string{"netdevice=ens1f0", "mac=02:00:00:00:00:01"},
			"option mac: only for one container: docker run --network name=NETWORK,driver-opt=mac=VALUE"},
		{[]string{"netdevice=ens1f0", "vlan_qos=3"}, "option vlan_qos: there is no tag to carry it; give vlan=1 to 4094 as well"},
		{[]string{"netdevice=ens1f0", "vlan=0", "vlan_proto=802.1ad"},
			"option vlan_proto: there is no tag to carry it; give vlan=1 to 4094 as well"},
		{[]string{"netdevice=ens1f0", "min_tx_rate=20", "max_tx_rate=10"}, "option min_tx_rate: 20 is above max_tx_rate 10"},
		{[]string{"netdevice=ens1f0", "link_state=up"}, `option link_state: "up" is not allowed; allowed: auto, enable or disable`},
		{[]string{"netdevice=ens1f0", "mtu=9g"}, `option mtu: "9g" is not allowed; allowed: 68 to 65535`},
		{[]string{"netdevice=ens1f0", "lock=netdevice"}, `option lock: "netdevice" is not allowed; allowed: all, or some of ` +
			known(option.ForBoth, option.ForContainer)},
		{[]string{"netdevice=ens1f0", "vfs=" + strings.Repeat("0-65535,", 1<<17) + "0"},
			"option vfs: is 1048577 bytes long; at most 4096 are allowed"},
		{[]string{"netdevice=ens1f0", "vfs=" + strings.Repeat("0-65535,", 500) + "0"},
			"option vfs: ens1f0 (0000:01:00.0) has vf 0 to 6, no vf 65535"},
		{[]string{"netdevice=ens1f0", "cores=" + strings.Repeat("0-16383,", 500) + "0"}, "option cores: cpu 8 does not exist or is offline; online are 0-7"},
		{[]string{"netdevice=../../etc"}, "option netdevice: ../../etc: no such device; the NICs of this host are ens1f0"},
	} {
		story(t, func(m *machine) {
			m.kernel.AddPF(igb())
			before := m.kernel.String()
			wantError(t, m.create("n", c.options...), c.want)
			if after, keys := m.kernel.String(), m.keys(); after != before || len(keys) > 0 {
				t.Errorf("%v: the ledger has %v, and the host is\n%s", c.options, keys, after)
			}
		})
	}
}

// TestGwAllocCheck: an engine from 28 on gets errors of the options before it allocates addresses. It allocates a gateway only with
// gateway=auto.
func TestGwAllocCheck(t *testing.T) {
	story(t, func(m *machine) {
		for value, skip := range map[string]bool{"auto": false, "none": true, "": true} {
			generic := map[string]any{"netdevice": "ens1f0"}
			if value != "" {
				generic["gateway"] = value
			}
			res, err := m.driver.GwAllocCheck(m.ctx, &netdrv.GwAllocCheckRequest{
				Options: map[string]any{"com.docker.network.generic": generic}})
			if err != nil || res.SkipIPv4 != skip || res.SkipIPv6 != skip {
				t.Errorf("gateway=%s: %+v, %v", value, res, err)
			}
		}
		_, err := m.driver.GwAllocCheck(context.Background(), &netdrv.GwAllocCheckRequest{
			Options: map[string]any{"com.docker.network.generic": map[string]any{"netdevice": "x", "vlan": "x"}}})
		wantError(t, err, `option vlan: "x" is not allowed; allowed: 0 to 4094, or keep`)
	})
}

// TestVLANOfContainer: a VLAN that a container has by its own option is its network's for as long as the container has the VF, whichever
// of the two comes first.
func TestVLANOfContainer(t *testing.T) {
	in := func(vlan string) map[string]any { return map[string]any{"vlan": vlan} }
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("one", "netdevice=ens1f0", "vlan=100")
		m.must(m.runWith("a", "one", in("200")))
		m.must(m.runWith("b", "one", in("200"))) // of the same network
		const held = "option vlan: 200 is used on ens1f0 (0000:01:00.0): "
		err := m.create("two", "netdevice=ens1f0", "vlan=200")
		if err == nil || !strings.HasPrefix(err.Error(), held) || !strings.Contains(err.Error(), " is held by endpoint ") {
			t.Errorf("a network with the VLAN of a container: %v", err)
		}
		m.mustCreate("two", "netdevice=ens1f0", "vlan=300")
		if err := m.runWith("c", "two", in("200")); err == nil || !strings.HasPrefix(err.Error(), held) {
			t.Errorf("a container with the VLAN of another network's: %v", err)
		}
		wantError(t, m.runWith("c", "two", in("100")), "option vlan: 100 is used on ens1f0 (0000:01:00.0) by network one; choose another")
		m.end("a")
		m.end("b")
		m.must(m.runWith("c", "two", in("200")))
		if err := m.runWith("d", "one", in("200")); err == nil || !strings.HasPrefix(err.Error(), held) {
			t.Errorf("the other way round: %v", err)
		}
	})
}

// TestVLANOfContainerOnItsWay: a VF that has not come home from a container in a VLAN keeps another network's containers out of it.
func TestVLANOfContainerOnItsWay(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("one", "netdevice=ens1f0")
		m.mustCreate("two", "netdevice=ens1f0")
		m.must(m.runWith("a", "one", map[string]any{"vlan": "200"}))
		at := m.where["a"]
		m.leave("a") // its namespace stays, with the VF in it
		m.delete("a")
		err := m.runWith("b", "two", map[string]any{"vlan": "200"})
		if err == nil || !strings.Contains(err.Error(), "is on its way back from endpoint") {
			t.Errorf("a container in the VLAN of a VF that is not home: %v", err)
		}
		m.must(m.kernel.MoveHome("a", at.inside, at.source))
		m.settled()
		m.must(m.runWith("b", "two", map[string]any{"vlan": "200"}))
	})
}

// TestVLANIsExclusive: a VLAN of a PF is for one network. Any number of networks can be untagged.
func TestVLANIsExclusive(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		for _, n := range []struct{ id, vlan string }{{"a", "vlan=100"}, {"b", "vlan=200"}, {"c", "vlan=0"}, {"d", "vlan=0"}} {
			m.mustCreate(n.id, "netdevice=ens1f0", n.vlan)
		}
		m.mustCreate("e", "netdevice=0000:01:00.0")
		wantError(t, m.create("f", "netdevice=ens1f0", "vlan=100"),
			"option vlan: 100 is used on ens1f0 (0000:01:00.0) by network a; choose another"+left("a"))
		m.mustRemove("a")
		if err := m.create("f", "netdevice=ens1f0", "vlan=100"); err != nil {
			t.Error(err)
		}
	})
}

// TestStoredNumbers: a network of an older version, which accepted more forms of a number, goes on with it; a new one is refused.
func TestStoredNumbers(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100")
		kv, err := m.store.Get(m.ctx, "net/n")
		m.must(err)
		old := strings.ReplaceAll(string(kv.Value), `"100"`, `"+0100"`)
		if old == string(kv.Value) {
			t.Fatalf("no vlan in %s", old)
		}
		_, err = m.store.Txn(m.ctx, nil, []store.Op{store.Put("net/n", []byte(old))})
		m.must(err)
		m.restart()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=+0100")
		m.mustRun("a", "n")
		if vfs, err := m.kernel.VFs(m.kernel.Link("ens1f0").Index); err != nil || vfs[0].VLAN.ID != 100 {
			t.Errorf("%v, %v", vfs, err)
		}
		wantError(t, m.create("two", "netdevice=ens1f0", "vlan=+0100"), `option vlan: "+0100" is not allowed; allowed: 0 to 4094, or keep`)
		if err := m.create("two", "netdevice=ens1f0", "vlan=100"); err == nil || !strings.Contains(err.Error(), "option vlan: 100 is used on") {
			t.Error(err)
		}
		m.end("a")
	})
}

// TestUnserved: what the engine asks for with a container and does not get is said in the log.
func TestUnserved(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		logged := m.logTo(zapcore.WarnLevel)
		ctx, cancel := m.call()
		defer cancel()
		_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("a"),
			Interface: &plugin.EndpointInterface{Address: "10.0.0.2/8"}, Options: map[string]any{
				"com.docker.network.portmap": []any{map[string]any{"Proto": float64(6), "Port": float64(80), "HostPort": float64(8080)},
					map[string]any{"Proto": float64(17), "Port": float64(53), "HostPort": float64(0)}},
				"com.docker.network.endpoint.exposedports": []any{map[string]any{"Proto": float64(6), "Port": float64(80)}},
				"com.docker.network.endpoint.sysctls":      "net.ipv4.conf.IFNAME.rp_filter=2",
			}})
		m.must(err)
		var got []string
		for _, e := range logged.All() {
			got = append(got, e.Message)
		}
		const own = ": the container has an address of its own on the NIC's network, and is reached there"
		want := []string{"not served: published ports 8080 (tcp 80), any (udp 53)" + own}
		if !slices.Equal(got, want) {
			t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		_, err = m.driver.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: "n", EndpointID: endpoint("a")})
		m.must(err)
	})
}
