//go:build kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOneCapability: every thread of the process, also one that is created later, has only the capability that plugin/config.json
// requests, in all sets, and cannot gain another.
func TestOneCapability(t *testing.T) { hasCapabilities(t, "0000000000001000") }

// TestCapabilityForDHCP: the setting DHCP adds CAP_NET_BIND_SERVICE, and nothing else.
func TestCapabilityForDHCP(t *testing.T) { hasCapabilities(t, "0000000000001400", "DHCP=true") }

// hasCapabilities starts the process with these settings.
func hasCapabilities(t *testing.T, caps string, settings ...string) {
	t.Helper()
	p := newProcess(t)
	p.cmd.Env = append(p.cmd.Env, settings...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := callWhenUp(p.socket, "Plugin.Activate", ""); err != nil {
		t.Fatal(err)
	}
	busy(t, p)
	want := map[string]string{
		"CapInh": "0000000000000000", "CapPrm": caps, "CapEff": caps, "CapBnd": caps, "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Umask": "0077",
	}
	if own := threadStatus(t, "/proc/self/status"); own["CapEff"] <= want["CapEff"] {
		t.Fatalf("the test itself has the capabilities %s only: the process had nothing to give up", own["CapEff"])
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads: %v, %v; want several", tasks, err)
	}
	for _, task := range tasks {
		if diff := cmp.Diff(want, threadStatus(t, task)); diff != "" {
			t.Errorf("%s:\n%s", task, diff)
		}
	}
}

// busy makes the process do many things at once, so that the runtime creates threads.
func busy(t *testing.T, p *process) {
	t.Helper()
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			const body = `{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24"}`
			if got, err := callWhenUp(p.socket, "IpamDriver.RequestPool", body); err != nil || !strings.HasPrefix(got, "200 ") {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	calls.Wait()
}

// threadStatus returns the lines of a thread's status about its privileges.
func threadStatus(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" || name == "Umask" {
			found[name] = strings.TrimSpace(value)
		}
	}
	return found
}
