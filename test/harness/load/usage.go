package load

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/engineapi"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// usage is the plugin's use of resources.
type usage struct {
	Goroutines, Descriptors, Threads   int
	HeapBytes, ResidentKiB, LedgerSize int64
	Records                            int // in the ledger
}

// readUsage reads the usage of the running plugin.
func readUsage(t *testing.T) usage {
	t.Helper()
	pid := dockertest.Run(t, "pidof", "driver")
	var u usage
	sockets, err := filepath.Glob("/run/docker/plugins/*/passthrough.sock")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %v, %v", sockets, err)
	}
	e := engineapi.Over(sockets[0])
	body, err := e.Ask(http.MethodPost, "/Passthrough.Usage", nil)
	if err == nil {
		err = json.Unmarshal(body, &u)
	}
	if err != nil {
		t.Fatal(err)
	}
	e.CloseIdleConnections()
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.Descriptors = len(fds)
	_, err = fmt.Sscan(dockertest.Sh(t, `awk '/^Threads|^VmRSS/ {print $2}' /proc/`+pid+`/status; stat -c %s `+stateDir(t)+"/ledger.db"),
		&u.ResidentKiB, &u.Threads, &u.LedgerSize)
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := invariant.ReadLedger(stateDir(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Records = len(ledger.Keys)
	return u
}

// stateDir is the plugin's state directory.
func stateDir(t *testing.T) string {
	t.Helper()
	return "/var/lib/docker/plugins/" + dockertest.Docker(t, "plugin", "inspect", "-f", "{{.Id}}", dockertest.Plugin) + "/propagated-mount"
}

// growth returns the resources that have grown from the first round to the last: after the first round every cache is filled.
func growth(first, last usage) (problems []string) {
	// An idle connection of the engine, and its goroutine, may exist or not.
	const idle = 8
	if last.Goroutines > first.Goroutines+2*idle || last.Descriptors > first.Descriptors+idle {
		problems = append(problems, "goroutines and descriptors grow")
	}
	if last.HeapBytes > first.HeapBytes+1<<20 || last.ResidentKiB > first.ResidentKiB+16<<10 {
		problems = append(problems, "memory grows")
	}
	// The file keeps its largest size, which depends on how calls overlap, and it grows by doubling.
	if last.Records != first.Records || last.LedgerSize > 2*first.LedgerSize {
		problems = append(problems, "the ledger grows")
	}
	return problems
}
