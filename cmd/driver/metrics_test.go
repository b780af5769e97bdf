package main

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// scraped returns the answer to a GET over the socket of METRICS as "STATUS BODY", "" while nobody listens.
func scraped(path, what string) string {
	resp, err := client(path).Get("http://plugin" + what)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return resp.Status[:4] + string(body)
}

// TestMetrics: the process is alive before its ledger can be opened, is ready once it has compared the ledger with the kernel, and counts calls.
func TestMetrics(t *testing.T) {
	p := newProcess(t)
	metrics := filepath.Join(filepath.Dir(p.socket), "m.sock")
	p.cmd.Env = append(p.cmd.Env, "METRICS=unix:"+metrics)
	p.makeLedger(t)
	letGo := p.holdLedger(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "an answer", func() bool { return scraped(metrics, "/healthz") == "200 ok\n" })
	if got, want := scraped(metrics, "/readyz"), "503 not ready: the ledger has not been compared with the kernel yet\n"; got != want {
		t.Errorf("before the ledger is opened: %s; want %s", got, want)
	}
	if got := scraped(metrics, "/metrics"); !strings.Contains(got, "\npassthrough_ready 0\n") {
		t.Errorf("before the ledger is opened: %s", got)
	}
	letGo()
	if _, err := callWhenUp(p.socket, "Passthrough.Status", "{}"); err != nil {
		t.Fatal(err)
	}
	if got, err := callWhenUp(p.socket, "NetworkDriver.Join", `{"NetworkID":"n","EndpointID":"e"}`); err != nil || strings.HasPrefix(got, "200") {
		t.Fatalf("a container joined without a network: %s, %v", got, err)
	}
	if got, err := callWhenUp(p.socket, "IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24"}`); err != nil {
		t.Fatal(got, err)
	}
	await(t, "readiness", func() bool { return scraped(metrics, "/readyz") == "200 ready\n" })
	got := scraped(metrics, "/metrics")
	for _, want := range []string{"passthrough_ready 1\n", `passthrough_call_duration_seconds_count{op="NetworkDriver.Join",outcome="error"} 1` + "\n",
		`passthrough_build_info{goversion="go`, `,state="free",subnet="192.0.2.0/24"} 254` + "\n", `passthrough_store_errors_total{op="txn",store="ledger"} 0` + "\n",
		"passthrough_ledger_size_bytes ", "passthrough_owed_operations 0\n", "passthrough_store_away 0\n"} {
		if !strings.Contains(got, "\n"+want) && !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
	if got := scraped(metrics, "/nothing"); !strings.HasPrefix(got, "404") {
		t.Errorf("/nothing: %s", got)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.out.String())
	}
}

// TestMetricsAddressInUse: the plugin works without the metrics, and says that they are not served.
func TestMetricsAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newProcess(t)
	p.cmd.Env = append(p.cmd.Env, "METRICS="+l.Addr().String())
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got, err := callWhenUp(p.socket, "Plugin.Activate", ""); err != nil || !strings.HasPrefix(got, "200") {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := callWhenUp(p.socket, "Passthrough.Status", "{}"); err != nil {
		t.Error(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if out := p.out.String(); !strings.Contains(out, "metrics are not served") || !strings.Contains(out, "address already in use") {
		t.Errorf("the log does not say it: %s", out)
	}
}
