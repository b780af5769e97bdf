//go:build lab

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/dockertest"
	"github.com/mellanox/passthrough/test/invariant"
)

// TestLoad starts and stops containers on all VFs of the NIC and on thin children of it, all at the same time, round after round
// (LOAD_ROUNDS and LOAD_CHILDREN; 3 and 20). One container more than there are VFs is refused in each round, for just that reason,
// and nothing else is. What the plugin takes of the machine is the same after each round.
func TestLoad(t *testing.T) {
	rounds, children := number(t, "LOAD_ROUNDS", 3), number(t, "LOAD_CHILDREN", 20)
	const vfs = 7
	asBefore(t)
	Sh(t, "ip link set "+pf+" up")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	sriov(t, "vfs", "10.1.0.0/24", "-o", "vlan=10")
	Network(t, "thin", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/23", "-o", "netdevice="+pf, "-o", "mode=macvlan")
	before, err := invariant.ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	e := overSocket("/var/run/docker.sock")
	var names []string
	create := func(name, network string) {
		t.Helper()
		Docker(t, "create", "--name", name, "--net", network, "lab", "sleep", "1000000")
		names = append(names, name)
	}
	t.Cleanup(func() { Sh(t, "docker rm -f $(docker ps -aq) >/dev/null") })
	for i := range vfs + 1 {
		create(fmt.Sprintf("vf%d", i), "vfs")
	}
	for i := range children {
		create(fmt.Sprintf("thin%d", i), "thin")
	}
	var takes []usage
	for round := range rounds {
		start := time.Now()
		refused := together(names, func(name string) error { return e.post("/containers/" + name + "/start") })
		started := time.Since(start)
		for name, err := range refused {
			if !strings.Contains(err.Error(), "all 7 vfs are in use") {
				t.Errorf("round %d: %s: %v", round+1, name, err)
			}
		}
		if len(refused) != 1 {
			t.Errorf("round %d: %d were refused, want the one that is too many", round+1, len(refused))
		}
		agree(t, before)
		start = time.Now()
		for name, err := range together(names, func(name string) error { return e.post("/containers/" + name + "/stop?t=0") }) {
			t.Errorf("round %d: stop %s: %v", round+1, name, err)
		}
		stopped := time.Since(start)
		agree(t, before)
		takes = append(takes, taken(t))
		t.Logf("round %d: all started in %.1f s, stopped in %.1f s; %+v", round+1, started.Seconds(), stopped.Seconds(), takes[round])
	}
	steady(t, takes)
}

// number is a number of the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	if os.Getenv(name) == "" {
		return otherwise
	}
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// together does something to all at the same time, and returns the errors.
func together(names []string, do func(name string) error) map[string]error {
	var mu sync.Mutex // guards failed
	failed := map[string]error{}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			if err := do(name); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[name] = err
			}
		})
	}
	wg.Wait()
	return failed
}

// agree waits until ledger, kernel and engine agree.
func agree(t *testing.T, before *invariant.Host) {
	t.Helper()
	Within(t, time.Minute, func() string {
		ledger, err := invariant.ReadLedger(stateDir(t))
		if err != nil {
			return err.Error()
		}
		host, err := invariant.ReadHost()
		if err != nil {
			return err.Error()
		}
		engine, containers, err := invariant.ReadDocker(Plugin)
		if err != nil {
			return err.Error()
		}
		f := invariant.Facts{Ledger: ledger, Host: host, Before: before, Engine: engine}
		return strings.Join(append(f.Violations(), sameDevice(containers)...), "\n")
	})
}

// sameDevice tells of devices and addresses that two containers have.
func sameDevice(containers []invariant.Container) (problems []string) {
	have := map[string]string{}
	for _, c := range containers {
		for _, link := range c.Links {
			for _, what := range append(slices.Clone(link.Addrs), link.PCI, link.MAC) {
				if other, ok := have[what]; ok && what != "" {
					problems = append(problems, fmt.Sprintf("%s and %s have %s", other, c.Name, what))
				}
				have[what] = c.Name
			}
		}
	}
	return problems
}

// stateDir is the plugin's state directory.
func stateDir(t *testing.T) string {
	t.Helper()
	return "/var/lib/docker/plugins/" + Docker(t, "plugin", "inspect", "-f", "{{.Id}}", Plugin) + "/propagated-mount"
}

// usage is what the plugin takes of the machine.
type usage struct {
	Goroutines, Descriptors, Threads int
	HeapBytes, ResidentKiB, Ledger   int64
}

// taken reads it.
func taken(t *testing.T) usage {
	t.Helper()
	pid := Run(t, "pidof", "driver")
	var u usage
	sockets, err := filepath.Glob("/run/docker/plugins/*/passthrough.sock")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %v, %v", sockets, err)
	}
	e := overSocket(sockets[0])
	body, err := e.ask("/Passthrough.Usage")
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
	_, err = fmt.Sscan(Sh(t, `awk '/^Threads|^VmRSS/ {print $2}' /proc/`+pid+`/status; stat -c %s `+stateDir(t)+"/ledger.db"), &u.ResidentKiB,
		&u.Threads, &u.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// steady compares the last round with the first: by then everything that is kept is there.
func steady(t *testing.T, takes []usage) {
	t.Helper()
	first, last := takes[0], takes[len(takes)-1]
	// A connection of the engine's that is idle, and what serves it, may be there or not.
	const idle = 8
	if last.Goroutines > first.Goroutines+2*idle || last.Descriptors > first.Descriptors+idle {
		t.Errorf("goroutines and descriptors grow: %+v, then %+v", first, last)
	}
	if last.HeapBytes > first.HeapBytes+1<<20 || last.ResidentKiB > first.ResidentKiB+16<<10 {
		t.Errorf("memory grows: %+v, then %+v", first, last)
	}
	if last.Ledger > first.Ledger {
		t.Errorf("the ledger grows: %+v, then %+v", first, last)
	}
}

// An api is one that is spoken over a socket. A command line for each of hundreds of containers would be the load.
type api struct{ *http.Client }

// overSocket is the API behind a socket.
func overSocket(path string) api {
	return api{&http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// post asks for something to be done.
func (a api) post(path string) error {
	_, err := a.ask(path)
	return err
}

// ask returns an answer. That there was nothing to do is none.
func (a api) ask(path string) ([]byte, error) {
	resp, err := a.Post("http://engine"+path, "application/json", http.NoBody)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
