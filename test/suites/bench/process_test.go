package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// BenchmarkP7 starts the plugin's binary on a ledger with 100,000 leases and 1,000 endpoints, and measures when it listens and when it has answered
// the first request for an address of that pool. Of the memory, anon is what it needs; the rest are pages of its files, which the kernel takes back.
// wakeups/min is how often a thread of an idle process goes on.
func BenchmarkP7(b *testing.B) {
	const leases, endpoints = 100_000, 1000
	state := b.TempDir()
	from, o := fill(b, netip.MustParsePrefix("10.0.0.0/8"), leases, leases)
	var all []store.KV
	err := from.Range(context.Background(), "", func(kv store.KV) error {
		all = append(all, kv)
		return nil
	})
	if err == nil {
		err = boltstore.Build(filepath.Join(state, "ledger.db"), all)
	}
	if err != nil {
		b.Fatal(err)
	}
	binary := buildDriver(b)
	host := namespace(b)
	p := start(b, host, binary, state)
	p.createEndpoints(endpoints)
	p.stop()
	var listening, answered times
	var anon, file, rss, wakeups int
	for b.Loop() {
		begin := time.Now()
		p := start(b, host, binary, state)
		listening = append(listening, time.Since(begin))
		var got ipam.RequestAddressResponse
		p.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{PoolID: o.pool}, &got)
		answered = append(answered, time.Since(begin))
		a, err := netip.ParsePrefix(got.Address)
		if err != nil {
			b.Fatal(err)
		}
		anon, file, rss = max(anon, p.memory("RssAnon")), max(file, p.memory("RssFile")), max(rss, p.memory("VmRSS"))
		p.call("IpamDriver.ReleaseAddress", ipam.ReleaseAddressRequest{PoolID: o.pool, Address: a.Addr().String()}, &struct{}{})
		wakeups += p.wakeups(idle)
		p.stop()
	}
	b.ReportMetric(listening.at(0.5).Seconds()*1000, "listening-ms")
	b.ReportMetric(answered.at(0.5).Seconds()*1000, "first-answer-ms")
	b.ReportMetric(float64(anon)/1024, "anon-MiB")
	b.ReportMetric(float64(file)/1024, "file-MiB")
	b.ReportMetric(float64(rss)/1024, "rss-MiB")
	b.ReportMetric(float64(wakeups)/idle.Minutes()/float64(len(listening)), "wakeups/min")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkP8 reports the size of the binary, which is all but some kilobytes of the bundle, and of which the goal is 16 MiB.
func BenchmarkP8(b *testing.B) {
	binary := buildDriver(b)
	for b.Loop() {
		info, err := os.Stat(binary)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/(16<<20), "times-16-MiB")
		b.ReportMetric(float64(info.Size())/1e6, "MB")
	}
	b.ReportMetric(0, "ns/op")
}

// buildDriver builds the binary as a release has it.
func buildDriver(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	if out, err := exec.Command("make", "-C", filepath.Join("..", "..", ".."), "build", "BIN="+dir).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "driver")
}

// process is a plugin that runs.
type process struct {
	b      *testing.B
	cmd    *exec.Cmd
	client *http.Client
}

// namespace makes a network namespace with the device eth9, and returns its name.
func namespace(b *testing.B) (name string) {
	b.Helper()
	name = fmt.Sprintf("bench%d", os.Getpid())
	for _, line := range []string{"netns add " + name, "-n " + name + " link add eth9 up type veth peer name eth8"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			b.Fatalf("ip %s: %v: %s; it must be root", line, err, out)
		}
	}
	b.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			b.Errorf("%v: %s", err, out)
		}
	})
	return name
}

// createEndpoints gives n containers a macvlan each.
func (p process) createEndpoints(n int) {
	p.b.Helper()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	p.call("NetworkDriver.CreateNetwork", network.CreateNetworkRequest{NetworkID: id,
		Options:  map[string]any{"com.docker.network.generic": map[string]string{"netdevice": "eth9", "mode": "macvlan"}},
		IPv4Data: []*network.IPAMData{{Pool: "10.200.0.0/16"}}}, &struct{}{})
	for i := range n {
		endpoint := fmt.Sprintf("%064x", i)
		p.call("NetworkDriver.CreateEndpoint", network.CreateEndpointRequest{NetworkID: id, EndpointID: endpoint,
			Interface: &network.EndpointInterface{Address: fmt.Sprintf("10.200.%d.%d/16", 1+i/200, 1+i%200)}}, &struct{}{})
		// One that is not joined is released after a minute.
		p.call("NetworkDriver.Join", network.JoinRequest{NetworkID: id, EndpointID: endpoint, SandboxKey: "/run/docker/netns/" + endpoint[52:]}, &struct{}{})
	}
}

// start starts a plugin in a network namespace with a state directory, and waits until it listens.
func start(b *testing.B, host, binary, state string) process {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "p.sock")
	p := process{b: b, cmd: exec.Command("ip", "netns", "exec", host, binary), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}}
	p.cmd.Env = append(os.Environ(), "SOCKET="+socket, "STATE_DIR="+state, "LOG_LEVEL=error")
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	err := retry.Poll(context.Background(), time.Millisecond, time.Minute, func() (bool, error) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// call makes a call of the engine.
func (p process) call(method string, request, answer any) {
	p.b.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		p.b.Fatal(err)
	}
	r, err := p.client.Post("http://plugin/"+method, "application/json", bytes.NewReader(body))
	if err != nil {
		p.b.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		p.b.Fatal(err)
	}
}

// memory returns a line of the process's status (proc_pid_status(5)) in KiB.
func (p process) memory(name string) int {
	p.b.Helper()
	return p.status(fmt.Sprintf("/proc/%d", p.cmd.Process.Pid), name)
}

// status returns the number in a line of the status of a process or thread.
func (p process) status(dir, name string) int {
	p.b.Helper()
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		p.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	number := strings.Fields(rest + " -")[0]
	n, err := strconv.Atoi(number)
	if err != nil {
		p.b.Fatal(err)
	}
	return n
}

// idle is how long wakeups are counted, and settled how long after the last call.
const idle, settled = time.Minute, 10 * time.Second

// wakeups returns how often the threads of the process have waited for something (voluntary_ctxt_switches of proc_pid_status(5)) within a time.
func (p process) wakeups(within time.Duration) int {
	p.b.Helper()
	count := func() (n int) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
		if err != nil {
			p.b.Fatal(err)
		}
		for _, thread := range threads {
			n += p.status(thread, "voluntary_ctxt_switches")
		}
		return n
	}
	if err := retry.Sleep(context.Background(), settled); err != nil {
		p.b.Fatal(err)
	}
	before := count()
	if err := retry.Sleep(context.Background(), within); err != nil {
		p.b.Fatal(err)
	}
	return count() - before
}

// stop ends the process as an engine does.
func (p process) stop() {
	p.b.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.b.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.b.Fatal(err)
	}
}
