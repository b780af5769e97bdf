//go:build engine

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/cmd/driver/monitor"
	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

const (
	// repository is the root of the repository, and debian what test/run has unpacked of Debian's package prometheus.
	repository = "../../../"
	debian     = repository + ".cache/prometheus/bin/"
	// managed is where the managed plugin serves its metrics, imitated where a machine with VFs does, and prometheus where Prometheus answers.
	managed    = "127.0.0.1:9877"
	imitated   = "127.0.0.1:9878"
	prometheus = "127.0.0.1:9090"
)

// TestPrometheus: a Prometheus scrapes the managed plugin while containers run, and each expression of the dashboard has series. Those about
// VFs are of a machine that is made up, because no NIC here has VFs. The alerts are tested by promtool.
func TestPrometheus(t *testing.T) {
	Run(t, debian+"promtool", "check", "rules", repository+"deploy/prometheus-rules.yaml")
	Run(t, debian+"promtool", "test", "rules", "testdata/alerts.yaml")
	serveManaged(t)
	machineWithVFs(t)
	startPrometheus(t)

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
		Within(t, time.Minute, func() string { return noSeries(want) })
	}
	for panel, expressions := range dashboard(t) {
		for _, e := range expressions {
			Within(t, time.Minute, func() string {
				if none := noSeries(e); none != "" {
					return "panel " + panel + ": " + none
				}
				return ""
			})
		}
	}
	if got, err := get("http://" + managed + "/readyz"); got != "ready\n" || err != nil {
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

// startPrometheus runs Prometheus with the alerts until the test ends.
func startPrometheus(t *testing.T) {
	t.Helper()
	rules, err := filepath.Abs(repository + "deploy/prometheus-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n"+
		"  - {job_name: passthrough, static_configs: [{targets: [%q, %q]}]}\n", rules, managed, imitated)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	Run(t, debian+"promtool", "check", "config", config)
	StartProgram(t, exec.Command(debian+"prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+prometheus, "--log.level=warn"))
}

// get returns the body of the answer 200.
func get(address string) (string, error) {
	answer, err := http.Get(address)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// noSeries asks Prometheus, and says what is wrong if an expression has no series.
func noSeries(expression string) string {
	got, err := get("http://" + prometheus + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return expression + ": " + err.Error()
	}
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		return err.Error()
	}
	if len(answer.Data.Result) == 0 {
		return expression + " has no series"
	}
	return ""
}

// dashboard returns the expressions of the dashboard's panels by their titles, as Grafana sends them for all machines.
func dashboard(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(repository + "deploy/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	panels := map[string][]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			panels[p.Title] = append(panels[p.Title], strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	if len(panels) == 0 {
		t.Fatal("the dashboard has no panel")
	}
	return panels
}
