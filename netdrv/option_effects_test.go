package netdrv_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv/option"
)

// effects are values of options that differ from what a network has without them. Not among them are netdevice, parent, mode and bond, which make a
// scenario, and those that need one of their own: cdi (TestCDIFollowsVFs), force (TestInUseByHost), lock (TestContainerOverrides), replace (TestReplace) and sticky
// (TestSticky).
var effects = map[string]string{
	"vlan": "7", "vlan_qos": "3", "vlan_proto": "802.1ad", "privileged": "yes", "spoofchk": "no", "trust": "yes", "link_state": "enable",
	"min_tx_rate": "10", "max_tx_rate": "100", "mac": "02:00:00:00:00:42", "guid": "02:c9:03:00:00:a1:b2:c4", "mtu": "1400", "txqlen": "500", "gso_max_size": "50000", "gro_max_size": "50000", "gso_ipv4_max_size": "50000", "gro_ipv4_max_size": "50000",
	"promisc": "yes", "allmulti": "yes", "queues": "1", "ring_rx": "512", "ring_tx": "512", "ethtool": "gro=off", "private_flags": "legacy-rx=on", "cores": "3",
	"vf": "2", "vfs": "2-3", "policy": "pack", "numa": "1", "near": "0000:02:00.0", "numvfs": "3", "prefix": "net", "ifname": "fab7", "routes": "192.0.2.0/24 via 10.0.0.9", "macvlan_mode": "private", "ipvlan_mode": "l3", "ipvlan_flag": "vepa",
	"ipoib_mode": "connected", "pkey": "0x8005", "gateway": "auto",
	"announce": "subnet", "host_access": "yes", "driver": "vfio-pci", "rdma": "yes", "bridge": "br1", "trunk": "100-102,200",
}

// effectNetworks are what a network can be of.
var effectNetworks = map[string][]string{
	"sriov":               {"netdevice=ens1f0,ens2f0"},
	"sriov, switchdev":    {"netdevice=ens3f0,ens4f0", "bridge=br0"},
	"sriov, of programs":  {"netdevice=ens1f0,ens2f0", "driver=vfio-pci"},
	"bond":                {"netdevice=ens1f0,ens2f0", "bond=active-backup"},
	"passthrough":         {"netdevice=ens5", "mode=passthrough"},
	"passthrough, a bond": {"netdevice=bond0", "mode=passthrough"},
	"macvlan":             {"netdevice=ens5", "mode=macvlan"},
	"ipvlan":              {"netdevice=ens5", "mode=ipvlan"},
	"ipoib":               {"netdevice=ib0", "mode=ipoib"},
}

// effectHost adds a device for each scenario.
func effectHost(m *machine) {
	for i := range 4 {
		pf := igb()
		pf.Name, pf.PCI, pf.MAC = fmt.Sprintf("ens%df0", i+1), []string{"0000:01:00.0", "0000:02:00.0", "0000:11:00.0", "0000:12:00.0"}[i], ""
		pf.Behaviour, pf.TotalVFs, pf.VFQueues, pf.Up, pf.NUMANode, pf.LocalCPUs = hwtest.AllVFOps(), 4, 4, true, i%2, []string{"0-3", "4-7"}[i%2]
		pf.Behind = fmt.Sprintf("pci0000:%02x/0000:%02x:%02x.0", 16*(i%2), 16*(i%2), i/2)
		pf.Switchdev = i > 1
		m.kernel.AddPF(pf)
	}
	m.kernel.AddPF(hwtest.PF{Name: "ens5", PCI: "0000:05:00.0", Driver: "e1000e", Up: true})
	filteringBridge(m, "br0")
	filteringBridge(m, "br1")
	bond(m, true)
	ipoib(m)
	m.kernel.LoadDriver("vfio-pci")
	m.settled()
	m.inventedGateway = func(context.Context, string, string) bool { return true }
}

// effect runs two containers on a network and returns all that the kernel was told and the engine was answered. The error is that of the
// network or of the first container.
func effect(m *machine, network []string, own map[string]any) (string, error) {
	r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/8", Gateway: "10.0.0.1/8",
		AuxAddresses: map[string]any{"host": "10.255.0.1/8"}}}}
	if err := m.createWith("n", r, network...); err != nil {
		return "", err
	}
	var answers []string
	for i, container := range []string{"a", "b"} {
		i := plugin.EndpointInterface{Address: fmt.Sprintf("10.0.0.%d/8", i+2)}
		ctx, cancel := m.call()
		defer cancel()
		_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint(container), Interface: &i, Options: own})
		if container == "a" && err != nil {
			return "", err
		}
		if err != nil { // there is one device
			break
		}
		join, err := m.join(container, "n")
		m.must(err)
		answers = append(answers, fmt.Sprintf("%+v", *join))
	}
	return strings.Join(m.kernel.Calls(), "\n") + strings.Join(answers, "\n") + m.kernel.String(), nil
}

// TestEveryOptionHasAnEffect: an option that does nothing on a network is refused, when the network is created or a container starts, with
// an error that names it.
func TestEveryOptionHasAnEffect(t *testing.T) {
	t.Parallel()
	without := map[string]string{} // the effect of a network without options, by how it is created
	elsewhere := []string{"netdevice", "parent", "mode", "bond", "force", "lock", "replace", "sticky", "cdi"}
	for _, o := range option.Options() {
		value, known := effects[o.Name]
		if !known && !slices.Contains(elsewhere, o.Name) {
			t.Errorf("option %s: this test has no value for it", o.Name)
		}
		for name, network := range effectNetworks {
			if !known || slices.Contains(network, o.Name+"="+value) {
				continue
			}
			if slices.Contains([]string{"vlan_qos", "vlan_proto"}, o.Name) && !slices.ContainsFunc(network, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
				network = append(slices.Clone(network), "vlan=7")
			}
			if o.Name == "announce" && name == "ipvlan" {
				network = append(slices.Clone(network), "ipvlan_mode=l3")
			}
			plain := strings.Join(network, " ")
			if without[plain] == "" {
				story(t, func(m *machine) {
					effectHost(m)
					var err error
					without[plain], err = effect(m, network, nil)
					m.must(err)
				})
			}
			baseline := without[plain]
			for _, scope := range []option.Scope{option.ForNetwork, option.ForContainer} {
				if o.For == scope || o.For == option.ForBoth {
					t.Run(o.Name+" "+name+" for a "+string(scope), func(t *testing.T) {
						t.Parallel()
						wantEffect(t, baseline, network, o.Name, value, scope)
					})
				}
			}
		}
	}
}

// wantEffect checks that an option has an effect on a network, or is refused.
func wantEffect(t *testing.T, without string, network []string, name, value string, scope option.Scope) {
	t.Helper()
	var with string
	var err error
	story(t, func(m *machine) {
		effectHost(m)
		if scope == option.ForContainer {
			with, err = effect(m, network, map[string]any{name: value})
		} else {
			with, err = effect(m, append(slices.Clone(network), name+"="+value), nil)
		}
	})
	named := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch {
	case err != nil && !named(name) && !(name == "privileged" && named("set trust true")) && !named(strings.ReplaceAll(name, "_", " ")) && !named("queues, rings, offloads and interrupts"):
		t.Errorf("%s=%s is refused without its name: %v", name, value, err)
	case err == nil && with == without:
		t.Errorf("%s=%s does nothing", name, value)
	}
}
