package netdrv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/netdrv/cdi"
	"github.com/mellanox/passthrough/store"
)

// A machine is a host with a fake kernel, a ledger and a driver, and an engine that calls the driver and moves devices as dockerd does.
type machine struct {
	t      *testing.T
	kernel *hwtest.Kernel
	store  store.Store
	driver *netdrv.Driver
	ctx    context.Context
	boot   string
	booted time.Time
	where  map[string]place // by container
	stop   context.CancelFunc
	log    *zap.Logger
	// inventedGateway is the answer of the IPAM driver.
	inventedGateway func(ctx context.Context, pool, gateway string) bool
	takesIfname     bool                // the engine is 29.8 or newer
	unnamed         map[string]bool     // addresses that the engine requested without a name
	devices         map[string][]string // names that the operator has given
	containerNames  map[string]string   // that the IPAM driver knows, by address
	forgotten       forgotten
	cdi             string       // folder for CDI specs; "" for none
	oldEngine       bool         // the namespace of a container does not exist yet when it is joined
	unplanned       bool         // networks are created without a plan before
	calls           atomic.Int64 // that the engine has begun and ended
}

// A place is where a container's device is.
type place struct{ network, source, inside string }

// story runs fn on a new machine in a synctest bubble, where waits cost no time. Afterwards it checks the invariants.
func story(t *testing.T, fn func(m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{t: t, kernel: hwtest.New(t), store: store.NewMemory(), boot: "boot-1", booted: time.Now().Add(-time.Hour), where: map[string]place{},
			log: zap.NewNop()}
		m.start(m.store)
		fn(m)
		m.stop()
		m.checkInvariants()
	})
}

// start starts a driver process on the ledger s. The process before it has to be stopped.
func (m *machine) start(s store.Store) {
	m.t.Helper()
	m.startOn(s, m.kernel)
}

// startOn is start with another kernel, such as one that wraps the machine's.
func (m *machine) startOn(s store.Store, k hw.Kernel) {
	m.t.Helper()
	host, err := hw.Open(hw.Config{Sys: m.kernel.Sys, Kernel: k, Boot: m.boot, Booted: m.booted})
	if err != nil {
		m.t.Fatal(err)
	}
	m.driver, err = netdrv.New(netdrv.Config{Store: s, Host: host, Log: m.log, RDMA: rdma.New(m.kernel.Sys, m.kernel.RDMA()), Namespace: m.namespace,
		InventedGateway: func(ctx context.Context, pool, gateway string) bool {
			return m.inventedGateway != nil && m.inventedGateway(ctx, pool, gateway)
		},
		CDI:              cdi.Folder{Dir: m.cdi, Sys: m.kernel.Sys},
		Devices:          func() (map[string][]string, error) { return m.devices, nil },
		ContainerName:    func(address string) string { return m.containerNames[address] },
		RequestedUnnamed: func(address string) bool { return m.unnamed[address] },
		AddressesForgotten: func(network string, addresses []string) {
			m.forgotten.add(network + " " + strings.Join(addresses, " "))
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.ctx, m.stop = context.WithCancel(m.t.Context())
	driver, ctx, done := m.driver, m.ctx, make(chan struct{})
	go func() {
		defer close(done)
		_ = driver.Reconcile(ctx) // ends with ctx
	}()
	cancel := m.stop
	m.stop = func() { cancel(); <-done }
}

// restart kills the driver process and starts another on the same ledger.
func (m *machine) restart() {
	m.stop()
	m.start(m.store)
}

// call returns the context of a call, with the server's time limit.
func (m *machine) call() (context.Context, context.CancelFunc) {
	m.calls.Add(1)
	ctx, cancel := context.WithTimeout(m.ctx, 10*time.Second)
	return ctx, func() { cancel(); m.calls.Add(1) }
}

// create creates a network; options are "key=value".
func (m *machine) create(id string, options ...string) error {
	return m.createWith(id, &plugin.CreateNetworkRequest{}, options...)
}

func (m *machine) createWith(id string, r *plugin.CreateNetworkRequest, options ...string) error {
	ctx, cancel := m.call()
	defer cancel()
	r.NetworkID = id
	if r.Options == nil {
		r.Options = map[string]any{}
	}
	maps.Copy(r.Options, request(options...))
	planned := m.plan(ctx, r)
	_, err := m.driver.CreateNetwork(ctx, r)
	m.asPlanned(id, planned, err)
	return err
}

// request returns the options of a network as the engine sends them; options are "key=value".
func request(options ...string) map[string]any {
	generic := map[string]any{}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		generic[k] = v
	}
	return map[string]any{"com.docker.network.generic": generic}
}

// remove removes a network.
func (m *machine) remove(id string) error {
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.DeleteNetwork(ctx, &plugin.DeleteNetworkRequest{NetworkID: id})
	return err
}

// endpoint is the endpoint ID of a container.
func endpoint(container string) string { return container + "-endpoint-0123456789" }

// attach calls CreateEndpoint and Join.
func (m *machine) attach(container, network string, i plugin.EndpointInterface) (*netdrv.JoinResponse, string, error) {
	ctx, cancel := m.call()
	defer cancel()
	res, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: network,
		EndpointID: endpoint(container), Interface: &i})
	if err != nil {
		return nil, "", err
	}
	mac := i.MacAddress
	if res.Interface != nil {
		mac = res.Interface.MacAddress
	}
	join, err := m.driver.Join(ctx, &plugin.JoinRequest{NetworkID: network, EndpointID: endpoint(container),
		SandboxKey: "/var/run/docker/netns/" + container})
	return join, mac, err
}

// namespace opens the file of a container's namespace, which is made.
func (m *machine) namespace(sandbox string) (*os.File, error) {
	file := filepath.Join(m.t.TempDir(), filepath.Base(sandbox))
	if !m.oldEngine {
		m.kernel.InNS(filepath.Base(sandbox))
		m.must(os.WriteFile(file, nil, 0o600))
	}
	return rdma.OpenNamespace(filepath.Dir(file), sandbox)
}

// addressOf returns a container's address, which is the same for each run.
func addressOf(container string) string {
	sum := fnv.New32a()
	sum.Write([]byte(container))
	b := sum.Sum(nil)
	return fmt.Sprintf("10.%d.%d.%d/8", b[1], b[2], b[3])
}

// ipOf is addressOf without the prefix length, as errors have it.
func ipOf(container string) string {
	ip, _, _ := strings.Cut(addressOf(container), "/")
	return ip
}

// run starts a container on a network, as docker run does, and returns the name of its device in the host, and its MAC.
func (m *machine) run(container, network string, mac ...string) (source, hwaddr string, err error) {
	i := plugin.EndpointInterface{Address: addressOf(container), MacAddress: strings.Join(mac, "")}
	join, hwaddr, err := m.attach(container, network, i)
	if err != nil {
		return "", "", err
	}
	source = join.InterfaceName.SrcName
	inside, err := m.inside(join.InterfaceName)
	if err != nil {
		return "", "", err
	}
	if err := m.kernel.MoveToNS(container, source, inside); err != nil {
		return "", "", err
	}
	m.where[container] = place{network, source, inside}
	return m.ownName(container, source), hwaddr, nil
}

// inside returns the name that the engine gives a device in the container (libnetwork/osl/interface_linux.go, createInterface).
func (m *machine) inside(names netdrv.InterfaceName) (string, error) {
	name := names.DstPrefix + "0"
	if m.takesIfname && names.DstName != "" {
		name = names.DstName
	}
	if len(name) > 15 { // IFNAMSIZ less one
		return "", fmt.Errorf("error renaming interface %q to %q: numerical result out of range", names.SrcName, name)
	}
	return name, nil
}

// ownName returns the name that a container's device had in the host before it was handed over as source.
func (m *machine) ownName(container, source string) string {
	own := source
	m.must(m.store.Range(m.t.Context(), "dev/", func(kv store.KV) error {
		var rec struct {
			Endpoint string
			Snapshot struct{ Link *hw.LinkState }
			Child    *hw.ChildSpec
			PartOf   string `json:"part_of"`
		}
		err := json.Unmarshal(kv.Value, &rec)
		if rec.Endpoint == endpoint(container) && rec.Snapshot.Link != nil && rec.Child == nil && rec.PartOf == "" {
			own = rec.Snapshot.Link.Name
		}
		return err
	}))
	return own
}

// mustRun is run, and an error ends the test.
func (m *machine) mustRun(container, network string, mac ...string) (source, hwaddr string) {
	m.t.Helper()
	source, hwaddr, err := m.run(container, network, mac...)
	if err != nil {
		m.t.Fatalf("run %s on %s: %v", container, network, err)
	}
	return source, hwaddr
}

// end ends a container, as docker stop does, and waits until its device is released.
func (m *machine) end(container string) {
	m.t.Helper()
	m.stopContainer(container)
	m.awaitReleases()
}

// stopContainer ends a container, and returns when the engine has its answers.
func (m *machine) stopContainer(container string) {
	m.t.Helper()
	p := m.where[container]
	m.leave(container)
	if err := m.kernel.MoveHome(container, p.inside, p.source); err != nil {
		m.t.Fatalf("stop %s: %v", container, err)
	}
	m.kernel.KillNS(container, 0)
	m.deleteEndpoint(container)
}

func (m *machine) leave(container string) {
	m.t.Helper()
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.Leave(ctx, &plugin.LeaveRequest{NetworkID: m.where[container].network, EndpointID: endpoint(container)})
	if err != nil {
		m.t.Fatalf("leave %s: %v", container, err)
	}
}

// delete calls DeleteEndpoint, and waits until the device is released.
func (m *machine) delete(container string) {
	m.t.Helper()
	m.deleteEndpoint(container)
	m.awaitReleases()
}

func (m *machine) awaitReleases() {
	m.t.Helper()
	ctx, cancel := m.call()
	defer cancel()
	m.must(netdrv.AwaitReleases(ctx, m.driver))
}

func (m *machine) deleteEndpoint(container string) {
	m.t.Helper()
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.DeleteEndpoint(ctx, &plugin.DeleteEndpointRequest{NetworkID: m.where[container].network,
		EndpointID: endpoint(container)})
	if err != nil {
		m.t.Fatalf("delete endpoint of %s: %v", container, err)
	}
	delete(m.where, container)
}

// settled waits until the reconciler has done everything that it does without a call.
func (m *machine) settled() { m.after(10 * time.Minute) }

// after lets time pass in the bubble.
func (m *machine) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// keys returns the keys of the ledger.
func (m *machine) keys() []string {
	m.t.Helper()
	var keys []string
	err := m.store.Range(m.t.Context(), "", func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return keys
}

// checkInvariants checks what is true while no call is at work: each endpoint has one allocation that names it.
func (m *machine) checkInvariants() {
	m.t.Helper()
	records := map[string]string{}
	err := m.store.Range(m.t.Context(), "", func(kv store.KV) error {
		records[kv.Key] = string(kv.Value)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for key, rec := range records {
		_, eid, ok := strings.Cut(strings.TrimPrefix(key, "ep/"), "/")
		if !ok || !strings.HasPrefix(key, "ep/") {
			continue
		}
		allocations := 0
		for k, a := range records {
			of := strings.Contains(a, fmt.Sprintf(`"endpoint":%q`, eid)) && !strings.Contains(a, `"part_of":`)
			if strings.HasPrefix(k, "dev/") && of {
				allocations++
			}
		}
		if allocations != 1 {
			m.t.Errorf("endpoint %s has %d allocations: %s", eid, allocations, rec)
		}
	}
}

// wantError compares the text of an error.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error is\n  %v\nwant\n  %s", err, want)
	}
}

// left is the end of the error about a conflict with another network.
func left(network string) string {
	return " (if the engine does not have that network, a crash has left it: say replace=" + network + ")"
}
