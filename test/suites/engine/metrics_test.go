//go:build engine

package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/cmd/driver/monitor"
	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/promtest"
)

const (
	// repository is the root of the repository.
	repository = "../../../"
	// managed is where the managed plugin serves its metrics, and imitated where a machine with VFs does.
	managed  = "127.0.0.1:9877"
	imitated = "127.0.0.1:9878"
)

// TestPrometheus: a Prometheus scrapes the managed plugin while containers run, and each expression of the dashboard has series. Those about
// VFs are of a machine that is made up, because no NIC here has VFs. The alerts are tested by promtool.
func TestPrometheus(t *testing.T) {
	promtest.Promtool(t, repository, "check", "rules", repository+"deploy/prometheus-rules.yaml")
	promtest.Promtool(t, repository, "test", "rules", "testdata/alerts.yaml")
	serveManaged(t)
	machineWithVFs(t)
	promtest.Start(t, repository, "1s", fmt.Sprintf("{targets: [%q, %q]}", managed, imitated))

	veth(t, "pt0", "10.20.0.1/24")
	passthrough(t, "n1", "pt0", "10.20.0.0/24")
	Container(t, "c1", "--net", "n1")
	veth(t, "mv0", "10.30.0.1/24")
	ours(t, "macvlan", "n2", "mv0", "10.30.0.0/28")
	Container(t, "c2", "--net", "n2")

	network := Docker(t, "network", "inspect", "-f", "{{.Id}}", "n2")[:12]
	name := ""
	if sendsNames(t) {
		name = "c2"
	}
	for _, want := range []string{
		`passthrough_device_state_since_seconds{instance="` + managed + `",mode="macvlan",state="lent",network="` + network + `",container="` + name + `"}`,
		`passthrough_devices{instance="` + managed + `",mode="passthrough",state="lent"} == 1`,
		`passthrough_pool_addresses{instance="` + managed + `",subnet="10.30.0.0/28",state="leased"} >= 1`,
		`passthrough_link_carrier{instance="` + managed + `",device="mv0"} == 1`,
		`passthrough_link_receive_bytes_total{instance="` + managed + `",device="mv0"}`,
		`passthrough_decisions_total{instance="` + managed + `",decision="devices_lent"} >= 2`,
		`passthrough_call_duration_seconds_count{instance="` + managed + `",op="NetworkDriver.CreateEndpoint",outcome="ok"} >= 2`,
		`passthrough_ready{instance="` + managed + `"} == 1`,
		`ALERTS{instance="` + imitated + `",alertname="PassthroughDeviceQuarantined",alertstate="firing"}`,
	} {
		Within(t, time.Minute, func() string { return promtest.NoSeries(want) })
	}
	for _, panel := range promtest.Panels(t, repository, "1m") {
		for _, target := range panel.Targets {
			Within(t, time.Minute, func() string {
				if none := promtest.NoSeries(target.Expr); none != "" {
					return "panel " + panel.Title + ": " + none
				}
				return ""
			})
		}
	}
	if got, err := promtest.Get("http://" + managed + "/readyz"); got != "ready\n" || err != nil {
		t.Errorf("/readyz: %s, %v", got, err)
	}
}

// serveManaged has the managed plugin serve metrics until the test ends.
func serveManaged(t *testing.T) {
	t.Helper()
	set := func(value string) {
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "METRICS=" + value}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
	}
	t.Cleanup(func() { set("off") })
	set(managed)
}

// machineWithVFs serves the metrics of a machine that has a PF whose driver counts, a VF in a container and one in quarantine.
func machineWithVFs(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	l, err := net.Listen("tcp", imitated)
	if err != nil {
		t.Fatal(err)
	}
	const network, pf = "0123456789abcdef", "0000:01:00.0"
	m := monitor.New()
	m.Connect(monitor.Sources{Version: "imitated", Ready: func() error { return nil }, Decisions: func() map[string]int64 { return nil },
		Devices: func(context.Context) (*metrics.Observation, error) {
			n := uint64(time.Now().UnixMilli())
			return &metrics.Observation{
				Devices: []metrics.Device{{ID: "0000:01:10.0", Label: "vf 0 of ens1f0", Mode: "sriov", State: "lent", Since: time.Now(), Network: network, PF: pf,
					VLAN: 100, Addresses: []string{"10.0.0.2/24"}},
					{ID: "0000:01:10.1", Label: "vf 1 of ens1f0", Mode: "sriov", State: "quarantined", Since: time.Unix(1, 0), Network: network, PF: pf, VF: 1}},
				PFs: []metrics.PF{{PCI: pf, Name: "ens1f0", VFs: 4, Counters: map[int]hw.Counters{0: {RxBytes: n, TxBytes: n, RxPackets: n, TxPackets: n,
					RxBroadcast: n, RxMulticast: n, RxDropped: n, TxDropped: n}}}},
				Links: []metrics.Link{{Name: "ens1f0", Up: true, Carrier: true}}}, nil
		},
		Pools: func(context.Context) (*ipamdrv.Observation, error) {
			return &ipamdrv.Observation{Pools: []admin.Pool{{ID: "p", Subnet: "10.0.0.0/24", Networks: []string{network}, Size: 254, Leased: 2}},
				Containers: map[ipamdrv.Place]string{{Network: network, Addr: netip.MustParseAddr("10.0.0.2")}: "web"}}, nil
		}})
	go func() { _ = m.Serve(ctx, l, zap.NewNop()) }()
}
