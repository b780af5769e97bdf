package netdrv_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// createEndpoint calls CreateEndpoint, and returns the MAC that it answers, "" for none.
func (m *machine) createEndpoint(container, network string, i plugin.EndpointInterface) (mac string, err error) {
	ctx, cancel := m.call()
	defer cancel()
	res, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: network,
		EndpointID: endpoint(container), Interface: &i})
	if err != nil || res.Interface == nil {
		return "", err
	}
	return res.Interface.MacAddress, nil
}

// join calls Join.
func (m *machine) join(container, network string) (*netdrv.JoinResponse, error) {
	ctx, cancel := m.call()
	defer cancel()
	return m.driver.Join(ctx, &plugin.JoinRequest{NetworkID: network, EndpointID: endpoint(container),
		SandboxKey: "/var/run/docker/netns/" + container})
}

// leaveFrom calls Leave, for containers that run did not start.
func (m *machine) leaveFrom(container, network string) error {
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.Leave(ctx, &plugin.LeaveRequest{NetworkID: network, EndpointID: endpoint(container)})
	return err
}

// deleteFrom calls DeleteEndpoint, for containers that run did not start.
func (m *machine) deleteFrom(container, network string) error {
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: network, EndpointID: endpoint(container)})
	return errors.Join(err, netdrv.AwaitReleases(ctx, m.driver))
}

// mustCreate is create, and an error ends the test.
func (m *machine) mustCreate(id string, options ...string) {
	m.t.Helper()
	if err := m.create(id, options...); err != nil {
		m.t.Fatalf("create network %s: %v", id, err)
	}
}

// mustRemove is remove, and an error ends the test.
func (m *machine) mustRemove(id string) {
	m.t.Helper()
	if err := m.remove(id); err != nil {
		m.t.Fatalf("remove network %s: %v", id, err)
	}
}

// reboot reboots the machine: only the ledger is kept. fresh adds the hardware, and does what the host's configuration does before the driver
// starts.
func (m *machine) reboot(fresh func(m *machine)) {
	m.t.Helper()
	m.stop()
	var n int
	if _, err := fmt.Sscanf(m.boot, "boot-%d", &n); err != nil {
		m.t.Fatal(err)
	}
	m.boot = fmt.Sprintf("boot-%d", n+1)
	m.booted = time.Now()
	m.where = map[string]place{}
	m.kernel = hwtest.New(m.t)
	fresh(m)
	m.start(m.store)
}

// ledger returns all records, in the order of their keys.
func (m *machine) ledger() string {
	m.t.Helper()
	var b strings.Builder
	err := m.store.Range(m.t.Context(), "", func(kv store.KV) error {
		fmt.Fprintf(&b, "%s %s\n", kv.Key, kv.Value)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return b.String()
}

// wantHost compares the whole host.
func (m *machine) wantHost(before string) {
	m.t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(m.kernel.String(), "\n")); diff != "" {
		m.t.Errorf("the host is not as it was:\n%s", diff)
	}
}

// wantKeys compares the keys of the ledger. It ignores the affinities of addresses and which devices were seen up, which are kept as long
// as their network.
func (m *machine) wantKeys(want ...string) {
	m.t.Helper()
	address := hex.EncodeToString([]byte("address "))
	remembered := cmpopts.IgnoreSliceElements(func(key string) bool {
		return slices.ContainsFunc(want, func(w string) bool {
			network, ok := strings.CutPrefix(w, "net/")
			return ok && (strings.HasPrefix(key, "sticky/"+network+"/"+address) || strings.HasPrefix(key, "up/"))
		})
	})
	if diff := cmp.Diff(want, m.keys(), remembered); diff != "" {
		m.t.Errorf("keys in the ledger:\n%s\nledger:\n%s", diff, m.ledger())
	}
}

// wantIn checks in which namespace the netdev of a PCI function is; "" is the host.
func (m *machine) wantIn(pci, ns string) {
	m.t.Helper()
	if got, _, ok := m.kernel.Netdev(pci); !ok || got != ns {
		m.t.Errorf("%s is in %q (there: %v), want it in %q", pci, got, ok, ns)
	}
}

// must ends the test if there is an error.
func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// vfStates returns what a PF has set for its VFs, by their index.
func (m *machine) vfStates(pf string) map[int]hw.VFState {
	m.t.Helper()
	states, err := m.kernel.VFs(m.kernel.Link(pf).Index)
	m.must(err)
	return states
}
