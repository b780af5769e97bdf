package netdrv_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/store"
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
			PFs: []metrics.PF{{PCI: "0000:01:00.0", Name: "ens1f0", VFs: 1, Counters: map[int]hw.Counters{0: counted}}},
			Links: []metrics.Link{{Name: "ens1f0", Up: true, Carrier: true, Driver: hw.DriverInfo{Name: "igb"},
				Rings: hw.Rings{Rx: 256, Tx: 256}, MaxRings: hw.Rings{Rx: 4096, Tx: 4096}}}}
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

// TestReadyAfterLedger: the driver is ready seconds after a ledger that could not be opened at the start is there.
func TestReadyAfterLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := time.Now().Add(time.Minute)
		ledger := store.Reopen(func() (store.Store, error) {
			if time.Now().Before(opens) {
				return nil, errors.New("locked by another process")
			}
			return store.NewMemory(), nil
		}, func(error) {})
		m := &machine{t: t, kernel: hwtest.New(t), boot: "boot-1", booted: time.Now().Add(-time.Hour), where: map[string]place{}, log: zap.NewNop()}
		m.start(ledger)
		time.Sleep(time.Until(opens) - time.Second)
		if m.driver.Ready() == nil {
			t.Error("it is ready without its ledger")
		}
		time.Sleep(8 * time.Second)
		if err := m.driver.Ready(); err != nil {
			t.Error(err)
		}
		m.stop()
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
}
