package netdrv_test

import (
	"encoding/json"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// quickPF is a PF with two VFs on which no operation takes long.
func quickPF() hwtest.PF {
	return hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", MAC: "52:54:00:aa:00:00", TotalVFs: 2, VFs: 2, Up: true, Behaviour: hwtest.AllVFOps()}
}

// FuzzNetworkOptions: a network is created with any three options, can be used, and leaves nothing behind; or the error names one of them,
// is the same in GwAllocCheck and CreateNetwork, and nothing has changed.
func FuzzNetworkOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, name3, value3 string) {
		raw := map[string]string{"netdevice": "ens1f0", name1: value1, name2: value2, name3: value3}
		delete(raw, "") // for inputs with fewer options
		story(t, func(m *machine) {
			m.kernel.AddPF(quickPF())
			host := m.kernel.String()
			generic := map[string]any{}
			for k, v := range raw {
				generic[k] = v
			}
			request := map[string]any{"com.docker.network.generic": generic}
			_, checked := m.driver.GwAllocCheck(m.ctx, &netdrv.GwAllocCheckRequest{Options: request})
			_, made := m.driver.CreateNetwork(m.ctx, &plugin.CreateNetworkRequest{NetworkID: "n", Options: request})
			switch {
			case checked != nil && (made == nil || made.Error() != checked.Error()):
				t.Errorf("%q: GwAllocCheck: %v; CreateNetwork: %v", raw, checked, made)
			case made != nil && !strings.HasPrefix(made.Error(), "option "):
				t.Errorf("%q: the error names no option: %v", raw, made)
			case made != nil && (len(m.keys()) > 0 || m.kernel.String() != host):
				t.Errorf("%q: was refused (%v), and left %s%s", raw, made, m.ledger(), m.kernel.String())
			}
			if made != nil {
				return
			}
			if _, _, err := m.attach("web", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"}); err == nil {
				m.where["web"] = place{network: "n"}
				m.delete("web")
			}
			m.mustRemove("n")
			m.settled()
			m.wantKeys()
			m.wantHost(host)
		})
	})
}

// FuzzContainerOptions: with any two options for one container, and any MAC and addresses, it gets a device that is restored afterwards; or
// there is an error, and nothing has changed.
func FuzzContainerOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, mac, address string) {
		story(t, func(m *machine) {
			m.kernel.AddPF(quickPF())
			before := m.kernel.String()
			m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "lock=trust")
			host, ledger := m.kernel.String(), m.ledger()
			r := &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("web"),
				Interface: &plugin.EndpointInterface{Address: address, MacAddress: mac}, Options: map[string]any{name1: value1, name2: value2}}
			delete(r.Options, "") // for inputs with fewer options
			made, err := m.driver.CreateEndpoint(m.ctx, r)
			if err != nil {
				m.settled()
				if m.ledger() != ledger {
					t.Errorf("%+v: was refused (%v), and the ledger is\n%s", r, err, m.ledger())
				}
				m.wantHost(host)
			} else if again, err := m.driver.CreateEndpoint(m.ctx, r); err != nil || mac == "" && again.Interface.MacAddress != made.Interface.MacAddress {
				t.Errorf("%+v: again: %+v, %v", r, again, err)
			}
			m.mustRemove("n")
			m.settled()
			m.wantKeys()
			m.wantHost(before)
		})
	})
}

// FuzzLedger: the driver survives any text in a record. It neither overwrites nor acts on one that it cannot read, and works as before when
// the record is repaired.
func FuzzLedger(f *testing.F) {
	keys := []string{"net/n", "ep/n/web-endpoint-0123456789", "dev/0000:01:10.0", "pf/0000:01:00.0", "sticky/n/" + stickyKey,
		"vlan/made-vlan-100-0000:01:00.0", "host/n"}
	f.Fuzz(func(t *testing.T, which uint8, value []byte) {
		story(t, func(m *machine) {
			pf := quickPF()
			pf.VFs = 0 // so that the plugin creates them, and records that
			m.kernel.AddPF(pf)
			before := m.kernel.String()
			m.must(m.createHosted("n", "netdevice=ens1f0", "vlan=100"))
			m.mustRun("web", "n", "02:00:00:00:00:42")
			m.unplanned = true // the reconciler acts on the record meanwhile
			good := m.ledgerRecords()
			m.put(stored{keys[int(which)%len(keys)], json.RawMessage(value)})
			host, ledger := m.kernel.String(), m.ledger()
			m.everything()
			if version(value) == 1 { // the driver may act on what it says
				m.store = store.NewMemory() // without the invariants of the one before
				return
			}
			if m.ledger() != ledger {
				t.Errorf("with %q the ledger was\n%sand is\n%s", value, ledger, m.ledger())
			}
			m.wantHost(host)
			m.put(good...)
			m.end("web")
			m.mustRemove("n")
			m.settled()
			m.wantKeys()
			m.wantHost(before)
		})
	})
}

// version returns the version of a record; 0 if it has none that can be read.
func version(record []byte) int {
	var r struct{ V int }
	if json.Unmarshal(record, &r) != nil {
		return 0
	}
	return r.V
}

// stickyKey is the identity key of a container with the MAC 02:00:00:00:00:42, as it is in the ledger.
const stickyKey = "30323a30303a30303a30303a30303a3432"

// everything makes each call that reads records, waits for the reconciler, and restarts the driver. It ignores errors.
func (m *machine) everything() {
	m.t.Helper()
	ctx, cancel := m.call()
	_, _ = m.driver.Join(ctx, &plugin.JoinRequest{NetworkID: "n", EndpointID: endpoint("web")})
	_, _ = m.createEndpoint("web", "n", plugin.EndpointInterface{MacAddress: "02:00:00:00:00:42"})
	cancel()
	_ = m.create("n", "netdevice=ens1f0", "vlan=200") // refused: it has an endpoint
	m.settled()
	m.restart()
	m.settled()
}

// FuzzDevice: any text in the option netdevice, in any mode, selects devices of the machine, or is an error.
func FuzzDevice(f *testing.F) {
	modes := []string{"sriov", "passthrough", "macvlan", "ipvlan", "ipoib"}
	f.Fuzz(func(t *testing.T, mode uint8, device string) {
		story(t, func(m *machine) {
			m.kernel.AddPF(quickPF())
			m.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
			m.kernel.AddVeth("tap0", "tap1")
			m.devices = map[string][]string{"fabric": {"ens1f0"}, "wide": {"*"}, "odd": {device}}
			host := m.kernel.String()
			for _, d := range []string{device, "odd"} {
				if err := m.create("n", "netdevice="+d, "mode="+modes[int(mode)%len(modes)]); err != nil {
					if !strings.HasPrefix(err.Error(), "option netdevice: ") && !strings.HasPrefix(err.Error(), "devices: ") {
						t.Errorf("%q: %v", d, err)
					}
					continue
				}
				m.mustRemove("n")
			}
			m.settled()
			m.wantKeys()
			m.wantHost(host)
		})
	})
}
