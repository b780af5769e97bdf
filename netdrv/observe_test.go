package netdrv_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// TestObserve: the metrics have each device that is not free, with its VLAN, and each PF with what its driver has counted of its VFs.
func TestObserve(t *testing.T) {
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		counted := hw.Counters{RxBytes: 100, TxBytes: 200, TxDropped: 3}
		m.kernel.CountVF("0000:01:00.0", 0, counted)
		got, err := m.driver.Observe(m.ctx)
		m.must(err)
		if got.Devices[0].Since.IsZero() {
			m.t.Error("it is not said since when the VF is lent")
		}
		since := got.Devices[0].Since
		want := &metrics.Observation{Networks: map[string]int{"sriov": 1},
			Devices: []metrics.Device{{ID: "0000:01:10.0", Label: "vf 0 of ens1f0 (0000:01:10.0)", Mode: "sriov", State: "lent", Since: since, Network: "n",
				Endpoint: endpoint("a"), PF: "0000:01:00.0", VLAN: 4, Addresses: []string{addressOf("a")}}},
			PFs:   []metrics.PF{{PCI: "0000:01:00.0", Name: "ens1f0", VFs: 1, Counters: map[int]hw.Counters{0: counted}}},
			Links: []metrics.Link{{Name: "ens1f0", Up: true, Carrier: true}}}
		if diff := cmp.Diff(want, got); diff != "" {
			m.t.Errorf("(-want +got):\n%s", diff)
		}
		m.end("a")
		m.kernel.CountVF("0000:01:00.0", 0, hw.Counters{})
		got, err = m.driver.Observe(m.ctx)
		m.must(err)
		want.Devices, want.PFs[0].Counters = nil, map[int]hw.Counters{}
		if diff := cmp.Diff(want, got); diff != "" {
			m.t.Errorf("after the container has gone (-want +got):\n%s", diff)
		}
	})
}
