//go:build engine

package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
	"github.com/mellanox/passthrough/test/harness/load"
)

// TestMixed: containers of Docker and of podman, and network namespaces that get their device by CNI, on the same devices: MIXED_OPS operations by
// lot (40) with MIXED_SEED (from the clock). All can have a child of one device; two other devices are had whole, by one at a time. After each
// operation the records, the host, the engine and what is in the namespaces agree: no device and no address is given twice, and none is lost.
func TestMixed(t *testing.T) {
	ops, seed := load.Number(t, "MIXED_OPS", 40), load.Number(t, "MIXED_SEED", int(time.Now().UnixNano()%1e6))
	t.Logf("MIXED_SEED=%d MIXED_OPS=%d", seed, ops)
	installPodman(t)
	m := &mixed{T: t, rand: rand.New(rand.NewPCG(uint64(seed), 0)), holders: map[string]*tenant{}}
	m.dir = "/var/lib/docker/plugins/" + Docker(t, "plugin", "inspect", "-f", "{{.Id}}", Plugin) + "/propagated-mount"
	for i, device := range devices {
		veth(t, device, fmt.Sprintf("10.6%d.0.254/24", i))
		Sh(t, "ip link set "+device+" up")
	}
	var err error
	if m.before, err = invariant.ReadHost(); err != nil {
		t.Fatal(err)
	}
	for i, device := range devices {
		m.podmanNetwork(device, i)
		m.cniNetwork(device, i)
	}
	ours(t, "macvlan", "docker-"+shared, shared, "10.60.0.0/24", "--ip-range", "10.60.0.0/26")
	t.Cleanup(func() {
		for len(m.tenants) > 0 {
			m.remove(m.tenants[0])
		}
	})
	for i := range ops {
		did := m.step()
		t.Logf("%d: %s", i+1, did)
		if err := Await(30*time.Second, m.check); err != nil {
			t.Fatalf("MIXED_SEED=%d, operation %d, %s: %v\n%s", seed, i+1, did, err, m.evidence())
		}
	}
	t.Logf("%v", m.count)
	for len(m.tenants) > 0 {
		m.remove(m.tenants[0])
	}
	Within(t, 30*time.Second, m.check)
}

// shared is the device that has children; the others are had whole.
const shared = "pt0"

// devices are the devices of the test.
var devices = []string{shared, "pt1", "pt2"}

// A mixed is a test in progress.
type mixed struct {
	*testing.T
	rand    *rand.Rand
	dir     string // of the plugin's state
	conf    string // folder of CNI's configurations
	before  *invariant.Host
	tenants []*tenant
	holders map[string]*tenant // of the devices that are had whole
	killed  time.Time          // when the process was killed last
	made    int
	count   struct{ Started, Refused, Stopped, Removed, Killed int }
}

// A tenant is a container, or a network namespace.
type tenant struct {
	door, name, device string
	running            bool
	address            string // while it runs
}

// mode is that of what the tenant has of its device.
func mode(device string) string {
	if device == shared {
		return "macvlan"
	}
	return "passthrough"
}

// podmanNetwork makes podman's network of a device.
func (m *mixed) podmanNetwork(device string, i int) {
	Sh(m.T, fmt.Sprintf("podman network create -d passthrough -o netdevice=%s -o mode=%s --subnet 10.6%d.0.0/24 --ip-range 10.6%d.0.64/26 podman-%s",
		device, mode(device), i, i, device))
	m.Cleanup(func() { Run(m.T, "podman", "network", "rm", "-f", "podman-"+device) })
}

// cniNetwork makes CNI's network of a device.
func (m *mixed) cniNetwork(device string, i int) {
	if m.conf == "" {
		m.conf = m.TempDir()
	}
	text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cni-%s", "plugins": [{"type": "passthrough-cni", "netdevice": %q, "mode": %q,
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.6%d.0.0/24", "rangeStart": "10.6%d.0.128", "rangeEnd": "10.6%d.0.191"}]]}}]}`,
		device, device, mode(device), filepath.Join(m.conf, "leases"), i, i, i)
	if err := os.WriteFile(filepath.Join(m.conf, device+".conflist"), []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// cni runs the runtime of containernetworking.
func (m *mixed) cni(command string, tn *tenant) error {
	_, err := Try("sh", "-c", fmt.Sprintf("NETCONFPATH=%s CNI_PATH=../../../bin:../../../.cache/test ../../../.cache/test/cnitool %s cni-%s /run/netns/%s",
		m.conf, command, tn.device, tn.name))
	return err
}

// killEvery is the least time between two kills. An engine waits twice as long before it starts a plugin again that has run for less than ten
// seconds, up to a minute.
const killEvery = 15 * time.Second

// step does one operation, and returns what it was.
func (m *mixed) step() string {
	var tn *tenant
	if len(m.tenants) > 0 {
		tn = m.tenants[m.rand.IntN(len(m.tenants))]
	}
	switch lot := m.rand.IntN(20); {
	case tn == nil || lot < 6 && len(m.tenants) < 8:
		m.made++
		tn = &tenant{door: []string{"docker", "podman", "cni"}[m.rand.IntN(3)], device: devices[m.rand.IntN(len(devices))]}
		tn.name = fmt.Sprintf("%s%d", tn.door, m.made)
		m.create(tn)
		return "create " + tn.name + " on " + tn.device
	case lot < 8 && tn.running && (tn.door != "podman" || tn.device == shared) && time.Since(m.killed) > killEvery:
		// The process is away while the tenant ends. If that is longer than podman waits, a veth that was handed over whole ends with the namespace: a
		// NIC would come home.
		m.killed = time.Now()
		m.count.Killed++
		Sh(m.T, "kill -9 $(pidof driver)")
		m.remove(tn)
		return "remove " + tn.name + " after the process was killed"
	case lot < 14 && tn.running:
		m.stop(tn)
		return "stop " + tn.name
	case lot < 17 && !tn.running:
		m.start(tn)
		return "start " + tn.name
	}
	m.remove(tn)
	return "remove " + tn.name
}

// create makes a tenant, and starts it. One that is refused is not there.
func (m *mixed) create(tn *tenant) {
	m.tenants = append(m.tenants, tn)
	network := tn.door + "-" + tn.device
	var err error
	switch tn.door {
	case "docker":
		if tn.device != shared {
			network = tn.name
			_, err = Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6"+tn.device[2:]+".0.0/24",
				"--ip-range", "10.6"+tn.device[2:]+".0.0/26", "-o", "netdevice="+tn.device, "-o", "mode=passthrough", network)
		}
		if err == nil {
			_, err = Try("docker", "run", "-d", "--name", tn.name, "--network", network, "lab", "sleep", "1000000")
		}
	case "podman":
		_, err = Try("podman", "run", "-d", "--name", tn.name, "--network", network, "busybox", "sleep", "1000000")
	case "cni":
		Sh(m.T, "ip netns add "+tn.name)
		err = m.cni("add", tn)
	}
	m.started(tn, err)
	if err != nil {
		m.remove(tn)
	}
}

// start starts a tenant that was stopped.
func (m *mixed) start(tn *tenant) {
	var err error
	if tn.door == "cni" {
		err = m.cni("add", tn)
	} else {
		_, err = Try(tn.door, "start", tn.name)
	}
	m.started(tn, err)
}

// started compares how a start has ended with whether the device was free, and notes what the tenant has.
func (m *mixed) started(tn *tenant, err error) {
	holder := m.holders[tn.device]
	free := tn.device == shared || holder == nil || holder == tn
	if (err == nil) != free {
		m.Fatalf("%s on %s: %v; the device is had by %+v", tn.name, tn.device, err, holder)
	}
	if err != nil {
		m.count.Refused++
		return
	}
	m.count.Started++
	tn.running = true
	if tn.device != shared {
		m.holders[tn.device] = tn
	}
}

// stop takes a tenant's device. Containers are killed now and then.
func (m *mixed) stop(tn *tenant) {
	m.count.Stopped++
	switch way := m.rand.IntN(2); {
	case tn.door == "cni":
		if err := m.cni("del", tn); err != nil {
			m.Fatal(err)
		}
	case way == 0:
		Run(m.T, tn.door, "kill", tn.name)
	default:
		Run(m.T, tn.door, "stop", "-t0", tn.name)
	}
	m.stopped(tn)
}

// stopped notes that a tenant has no device. A network of Docker's has it still.
func (m *mixed) stopped(tn *tenant) {
	tn.running, tn.address = false, ""
	if tn.door != "docker" && m.holders[tn.device] == tn {
		delete(m.holders, tn.device)
	}
}

// remove ends a tenant. Now and then a namespace ends before its DEL, but not with a whole veth in it, which would end as well.
func (m *mixed) remove(tn *tenant) {
	switch tn.door {
	case "docker":
		_, _ = Try("docker", "rm", "-f", tn.name) // its network may have been refused
		if m.holders[tn.device] == tn {
			Within(m.T, 30*time.Second, func() string { // while it comes home
				_, err := Try("docker", "network", "rm", tn.name)
				return text(err)
			})
			delete(m.holders, tn.device)
		}
	case "podman":
		removePodman(m.T, tn.name)
	case "cni":
		early := tn.device == shared && m.rand.IntN(2) == 0
		if early {
			Sh(m.T, "ip netns del "+tn.name)
		}
		Within(m.T, 30*time.Second, func() string { return text(m.cni("del", tn)) }) // a runtime repeats it
		if !early {
			Sh(m.T, "ip netns del "+tn.name)
		}
	}
	m.count.Removed++
	m.stopped(tn)
	m.tenants = slices.DeleteFunc(m.tenants, func(other *tenant) bool { return other == tn })
}

// text is that of an error, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// evidence is what there is when something does not agree.
func (m *mixed) evidence() string {
	text, err := Try("sh", "-c", `ip -br link; ../../../bin/passthroughctl status; docker ps -a; podman ps -a; ls -l /run/netns
for n in /run/netns/* /run/docker/netns/*; do echo $n; nsenter --net=$n ip -br address; done; grep ' plugin=' /var/log/dockerd.log | tail -n 40`)
	return fmt.Sprint(text, "\n", err)
}

// check returns what does not agree, "" if all does.
func (m *mixed) check() string {
	ledger, err := invariant.ReadLedger(m.dir)
	if err != nil {
		return err.Error()
	}
	host, err := invariant.ReadHost()
	if err != nil {
		return err.Error()
	}
	engine, _, err := invariant.ReadDocker(Plugin)
	if err != nil {
		return err.Error()
	}
	wrong := invariant.Facts{Ledger: ledger, Host: host, Before: m.before, Engine: engine}.Violations()
	has, wants := map[string]int{}, map[string]int{}
	for _, e := range ledger.Endpoints {
		has[e.Owner.Kind]++
	}
	seen := map[string]string{} // addresses and MACs
	for _, tn := range m.tenants {
		if !tn.running {
			continue
		}
		wants[map[string]string{"podman": "podman", "cni": "cni"}[tn.door]]++
		for _, what := range m.inside(tn) {
			if other := seen[what]; other != "" {
				wrong = append(wrong, fmt.Sprintf("%s: %s and %s have it", what, other, tn.name))
			}
			seen[what] = tn.name
		}
		switch {
		case tn.address == "":
			wrong = append(wrong, tn.name+" has no device with an address")
		case seen[tn.address] != tn.name:
			wrong = append(wrong, tn.name+" does not have its address "+tn.address)
		}
	}
	if fmt.Sprint(has) != fmt.Sprint(wants) {
		wrong = append(wrong, fmt.Sprintf("the ledger has endpoints for %v, and there are %v", has, wants))
	}
	return strings.Join(wrong, "\n")
}

// inside returns the addresses and the MAC of a tenant's device, and notes its address, which stays as long as it runs.
func (m *mixed) inside(tn *tenant) (found []string) {
	netns := "/run/netns/" + tn.name
	if tn.door != "cni" {
		netns = Run(m.T, tn.door, "inspect", "-f", "{{.NetworkSettings.SandboxKey}}", tn.name)
	}
	var links []struct {
		Address string
		Addrs   []struct {
			Local, Family string
			Scope         string
		} `json:"addr_info"`
	}
	out, err := Try("nsenter", "--net="+netns, "ip", "-j", "address", "show", "eth0")
	if err != nil || json.Unmarshal([]byte(out), &links) != nil || len(links) != 1 {
		return nil
	}
	for _, a := range links[0].Addrs {
		if a.Scope == "global" {
			found = append(found, a.Local)
			if tn.address == "" {
				tn.address = a.Local
			}
		}
	}
	return append(found, links[0].Address)
}
