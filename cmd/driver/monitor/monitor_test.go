package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// full returns sources with something of everything.
func full(t *testing.T) Sources {
	t.Helper()
	ledger := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(ledger, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	network := strings.Repeat("abcd", 16)
	return Sources{Version: "v1", LedgerFile: ledger, Ready: func() error { return nil },
		Decisions: func() map[string]int64 { return map[string]int64{"orphans": 2} },
		Devices: func(context.Context) (*metrics.Observation, error) {
			return &metrics.Observation{Networks: map[string]int{"sriov": 1},
				Devices: []metrics.Device{{ID: "0000:01:10.0", Label: "vf 0 of ens1f0", Mode: "sriov", State: "lent", Since: time.Unix(1000, 0), Network: network,
					Endpoint: "e", PF: "0000:01:00.0", VLAN: 4, Addresses: []string{"10.0.0.2/24"}},
					{ID: "0000:01:10.1", Label: "vf 1 of ens1f0", Mode: "sriov", State: "quarantined", Network: network, PF: "0000:01:00.0", VF: 1}},
				PFs: []metrics.PF{{PCI: "0000:01:00.0", Name: "ens1f0", VFs: 4, Counters: map[int]hw.Counters{0: {RxBytes: 7, RxBroadcast: 8}, 3: {TxBytes: 9}}}},
				Links: []metrics.Link{{Name: "ens1f0", Up: true, Counted: true, Counters: hw.Counters{RxErrors: 5, RxMissed: 6, TxTimeouts: 7},
					Driver: hw.DriverInfo{Name: "igb", Version: "6.12", Firmware: "3.25"}, Rings: hw.Rings{Rx: 256, Tx: 512}, MaxRings: hw.Rings{Rx: 4096, Tx: 4096}}}}, nil
		},
		Pools: func(context.Context) (*ipamdrv.Observation, error) {
			return &ipamdrv.Observation{Shared: true, Owed: 3, Unread: 1, Away: errors.New("no etcd answers"),
				Pools:      []admin.Pool{{ID: "p", Subnet: "10.0.0.0/24", Networks: []string{network}, Size: 254, Leased: 2, Prefetched: 4, Cooldown: 1}},
				Containers: map[ipamdrv.Place]string{{Network: network, Addr: netip.MustParseAddr("10.0.0.2")}: "web"}}, nil
		}}
}

// monitored returns a monitor that has counted one of each.
func monitored(s Sources) *Monitor {
	m := New()
	m.Connect(s)
	m.Call("NetworkDriver.Join", "ok", time.Millisecond)
	m.Store("ledger")("txn", time.Millisecond, errors.New("disk full"))
	return m
}

// get returns the answer to a request.
func get(m *Monitor, path string) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	body, _ := io.ReadAll(w.Result().Body)
	return fmt.Sprintf("%d %s", w.Code, body)
}

// TestScrape: values and labels of what was observed. The PF's driver counts for VFs that are free, too.
func TestScrape(t *testing.T) {
	got := get(monitored(full(t)), "/metrics")
	for _, want := range []string{
		`device_state_since_seconds{container="web",device="0000:01:10.0",endpoint="e",label="vf 0 of ens1f0",mode="sriov",network="abcdabcdabcd",pf="ens1f0",state="lent",vf="0",vlan="4"} 1000`,
		`vf_receive_bytes_total{container="web",network="abcdabcdabcd",pf="ens1f0",vf="0",vlan="4"} 7`,
		`vf_receive_broadcast_packets_total{container="web",network="abcdabcdabcd",pf="ens1f0",vf="0",vlan="4"} 8`,
		`vf_transmit_bytes_total{container="",network="",pf="ens1f0",vf="3",vlan=""} 9`,
		`vfs{pf="ens1f0",state="free"} 2`, `vfs{pf="ens1f0",state="lent"} 1`, `vfs{pf="ens1f0",state="quarantined"} 1`,
		`devices{mode="sriov",state="quarantined"} 1`, `link_carrier{device="ens1f0"} 0`, `link_receive_errors_total{device="ens1f0"} 5`,
		`link_receive_missed_packets_total{device="ens1f0"} 6`, `link_transmit_timeouts_total{device="ens1f0"} 7`,
		`link_ring_size{device="ens1f0",ring="tx"} 512`, `link_ring_size_max{device="ens1f0",ring="rx"} 4096`,
		`link_driver_info{device="ens1f0",driver="igb",firmware="3.25",version="6.12"} 1`,
		`pool_addresses{name="",network="abcdabcdabcd",pool="p",state="free",subnet="10.0.0.0/24"} 247`,
		`decisions_total{decision="orphans"} 2`, `store_errors_total{op="txn",store="ledger"} 1`, `store_away 1`, `owed_operations 3`, `ledger_size_bytes 100`,
	} {
		if !strings.Contains(got, "\n"+prefix+want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestTable: each metric of the table is reported, with the kind and the labels that the table says, and no other metric of the plugin is.
func TestTable(t *testing.T) {
	m := monitored(full(t))
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got = append(got, fmt.Sprint(f.GetName(), " ", strings.ToLower(f.GetType().String()), " ", labels, " ", f.GetHelp()))
	}
	for _, r := range metricTable {
		want = append(want, fmt.Sprint(prefix, r.name, " ", r.kind, " ", slices.Sorted(slices.Values(r.labels)), " ", r.help))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-table +reported):\n%s", diff)
	}
}

// TestManualMetrics: docs/metrics.md has the table.
func TestManualMetrics(t *testing.T) {
	var table strings.Builder
	table.WriteString("| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n")
	for _, r := range metricTable {
		fmt.Fprintf(&table, "| `%s%s` | %s | %s | %s | %s |\n", prefix, r.name, r.kind, r.unit, strings.Join(r.labels, ", "), r.help)
	}
	docs.Table(t, "../../../docs/metrics.md", "<!-- metrics: made from cmd/driver/monitor/metrics.go -->\n", "<!-- end of metrics -->\n", table.String())
}

// TestReadiness: a store that nodes share is not needed; a ledger that was not read, or a setting that is refused, is why the plugin is not ready.
func TestReadiness(t *testing.T) {
	s := full(t)
	want := "200 ready; the shared store is away: no etcd answers; 3 operations are owed\n"
	if got := get(monitored(s), "/readyz"); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	s.Ready = func() error { return errors.New("the ledger has not been compared with the kernel yet") }
	want = "503 not ready: the ledger has not been compared with the kernel yet\n"
	if got := get(monitored(s), "/readyz"); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	refused := monitored(Sources{Refused: errors.New("STORE is wrong")})
	if got := get(refused, "/readyz"); got != "503 not ready: STORE is wrong\n" {
		t.Error(got)
	}
	if got := get(refused, "/healthz"); got != "200 ok\n" {
		t.Error(got)
	}
	if got := get(refused, "/metrics"); !strings.Contains(got, "\npassthrough_ready 0\n") {
		t.Error(got)
	}
}

// TestHangingKernel: a scrape is answered in time with what was observed before, and no scrape begins what hangs a second time.
func TestHangingKernel(t *testing.T) {
	s := full(t)
	devices, hang := s.Devices, make(chan struct{})
	var begun atomic.Int32
	s.Devices = func(ctx context.Context) (*metrics.Observation, error) {
		if begun.Add(1) > 1 {
			<-hang
		}
		return devices(ctx)
	}
	synctest.Test(t, func(t *testing.T) {
		hang = make(chan struct{})
		m := monitored(s)
		get(m, "/metrics")
		for range 3 {
			start := time.Now()
			got := get(m, "/metrics")
			if took := time.Since(start); took > observeBound {
				t.Errorf("a scrape took %s", took)
			}
			if !strings.Contains(got, `state="quarantined"`) {
				t.Error("what was observed before is not reported")
			}
		}
		if age := regexp.MustCompile(`(?m)^passthrough_observation_age_seconds (\S+)`).FindStringSubmatch(get(m, "/metrics")); age == nil || age[1] != "8" {
			t.Errorf("it is said to be %v seconds old, want 8", age)
		}
		if n := begun.Load(); n != 2 {
			t.Errorf("%d observations were begun, want 2", n)
		}
		close(hang)
		synctest.Wait()
	})
}

// TestFailures: what could not be observed is counted, and what was known of it before is reported; a panic is a failure.
func TestFailures(t *testing.T) {
	s := full(t)
	pools, broken := s.Pools, false
	s.Pools = func(ctx context.Context) (*ipamdrv.Observation, error) {
		if broken {
			panic("a bug")
		}
		return pools(ctx)
	}
	m := monitored(s)
	get(m, "/metrics")
	broken = true
	got := get(m, "/metrics")
	for _, want := range []string{`observation_errors_total{part="pools"} 1`, `observation_errors_total{part="devices"} 0`, `owed_operations 3`} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
}
