package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// A shared machine has both drivers, wired as the process wires them, one ledger, and the fake kernel. A network of Docker, of which only the
// pool is here, has the pool "lan": the pods of CNI networks share it.
type sharedMachine struct {
	*testing.T
	dir     string
	kernel  *hwtest.Kernel
	store   store.Store
	network *netdrv.Driver
	ipam    *ipamdrv.Driver
	ctx     context.Context
	stop    func()
	docker  string // its pool
}

// onSharedMachine runs a test in a bubble, where waits cost no time.
func onSharedMachine(t *testing.T, run func(m *sharedMachine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &sharedMachine{T: t, dir: t.TempDir(), kernel: hwtest.New(t), store: store.NewMemory()}
		m.kernel.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 2, VFs: 2, Up: true, Behaviour: hwtest.AllVFOps()})
		m.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
		m.start(m.store)
		pool, err := m.ipam.RequestPool(m.ctx, &ipam.RequestPoolRequest{Pool: "10.1.0.0/28", Options: map[string]string{"pool": "lan"}})
		m.must(err)
		m.docker = pool.PoolID
		_, err = m.ipam.RequestAddress(m.ctx, &ipam.RequestAddressRequest{PoolID: m.docker, Address: "10.1.0.14", Options: map[string]string{"RequestAddressType": netlabel.Gateway}})
		m.must(err)
		run(m)
		m.stop()
	})
}

func (m *sharedMachine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// start starts a process on a ledger.
func (m *sharedMachine) start(s store.Store) {
	m.Helper()
	m.startOn(config{store: storeBolt, stateDir: m.dir}, s, s)
}

// startOn starts a process on a ledger, with pools and leases in another one.
func (m *sharedMachine) startOn(cfg config, own, pools store.Store) {
	m.Helper()
	var err error
	m.network, m.ipam, err = newDrivers(cfg, hw.Config{Sys: m.kernel.Sys, Kernel: m.kernel, Boot: "boot-1"}, own, pools, newCrashPoints(), zap.NewNop())
	m.must(err)
	ctx, cancel := context.WithCancel(m.Context())
	ended := make(chan error, 2)
	network, addresses := m.network, m.ipam
	go func() { ended <- network.Reconcile(ctx) }()
	go func() { ended <- addresses.Maintain(ctx) }()
	m.ctx, m.stop = ctx, func() { cancel(); <-ended; <-ended }
}

// settled waits until both drivers have found what is over.
func (m *sharedMachine) settled() {
	time.Sleep(30 * time.Minute)
	synctest.Wait()
}

// keys returns the keys of the ledger, without what only says what was: which container had which VF and address.
func (m *sharedMachine) keys() (keys []string) {
	m.Helper()
	m.must(m.store.Range(m.Context(), "", func(kv store.KV) error {
		if !strings.HasPrefix(kv.Key, "sticky/") && !strings.Contains(string(kv.Value), `"kind":"resting"`) {
			keys = append(keys, kv.Key)
		}
		return nil
	}))
	return keys
}

// dockerTakes leases all addresses that are left, as containers of Docker, and releases them again. None may be one of those.
func (m *sharedMachine) dockerTakes(none ...string) {
	m.Helper()
	var got []string
	for {
		a, err := m.ipam.RequestAddress(m.ctx, &ipam.RequestAddressRequest{PoolID: m.docker})
		if errors.Is(err, ipamdrv.ErrFull) {
			break
		}
		m.must(err)
		got = append(got, a.Address)
		if slices.Contains(none, a.Address) {
			m.Errorf("Docker gets %s, which a pod has", a.Address)
		}
	}
	for _, a := range got {
		_, err := m.ipam.ReleaseAddress(m.ctx, &ipam.ReleaseAddressRequest{PoolID: m.docker, Address: strings.TrimSuffix(a, "/28")})
		m.must(err)
	}
}

// A sharedPod is a pod of a CNI network. In the kernel its namespace has the name of its file.
type sharedPod struct {
	m   *sharedMachine
	req admin.AttachRequest
	at  *admin.Attachment
}

// pod makes a pod's namespace. The network has a VLAN VF, or what the options say.
func (m *sharedMachine) pod(id string, options ...string) *sharedPod {
	m.Helper()
	path := filepath.Join(m.dir, id)
	m.must(os.WriteFile(path, nil, 0o600))
	ns, err := hw.NamespaceAt(path)
	m.must(err)
	p := &sharedPod{m: m, req: admin.AttachRequest{Owner: admin.Owner{Kind: "cni", ID: id, Netns: path, Device: ns.Device, Inode: ns.Inode}, Network: "mynet",
		Options: map[string]string{}, IPAM: &admin.IPAM{Subnets: []admin.Subnet{{Subnet: "10.1.0.0/28", Gateway: "10.1.0.14"}}, Options: map[string]string{"pool": "lan"}}}}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		p.req.Options[k] = v
	}
	return p
}

// add attaches a device and moves it into the namespace.
func (p *sharedPod) add() error {
	ctx, cancel := context.WithTimeout(p.m.ctx, 10*time.Second)
	defer cancel()
	at, err := p.m.network.Attachments.Attach(ctx, &p.req)
	if err != nil {
		return err
	}
	p.at = at
	return p.m.kernel.MoveToNS(p.req.Owner.Netns, p.at.Name, "eth1")
}

// detach releases the device.
func (p *sharedPod) detach() error {
	ctx, cancel := context.WithTimeout(p.m.ctx, 10*time.Second)
	defer cancel()
	_, err := p.m.network.Attachments.Detach(ctx, &p.req.Owner)
	return err
}

// del moves the device back and releases it.
func (p *sharedPod) del() error {
	if err := p.m.kernel.MoveHome(p.req.Owner.Netns, "eth1", p.at.Name); err != nil {
		return err
	}
	return p.detach()
}

// addresses returns those that the pod uses: none unless a device is in its namespace.
func (p *sharedPod) addresses() []string {
	if p.at == nil || len(p.m.kernel.InNS(p.req.Owner.Netns).Links()) == 0 {
		return nil
	}
	return p.at.Addresses
}

// ownersModes are the modes of the pods.
var ownersModes = map[string][]string{"vf": {"netdevice=ens1f0", "vlan=100"}, "macvlan": {"netdevice=ens2", "mode=macvlan"}}

// A lostAnswer is a store that loses the answer of the first transaction that writes a key with a prefix, and refuses the next one that deletes
// such a key.
type lostAnswer struct {
	store.Store
	prefix        string
	lost, refused bool
}

// Txn implements [store.Store].
func (l *lostAnswer) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	for _, op := range then {
		switch {
		case !strings.HasPrefix(op.Key, l.prefix):
		case op.Value != nil && !l.lost:
			l.lost = true
			_, err := l.Store.Txn(ctx, conds, then)
			return store.Result{}, errors.Join(err, fmt.Errorf("%w: the answer was lost", store.ErrAmbiguous))
		case op.Value == nil && !l.refused:
			l.refused = true
			return store.Result{}, fmt.Errorf("%w: refused", store.ErrUnavailable)
		}
	}
	return l.Store.Txn(ctx, conds, then)
}

// TestOwnersNetworkAnswerLost: the network of a pod was recorded, but the answer was lost, and it cannot be removed. It keeps its pool: the next
// attempt succeeds.
func TestOwnersNetworkAnswerLost(t *testing.T) {
	t.Parallel()
	onSharedMachine(t, func(m *sharedMachine) {
		m.stop()
		m.start(&lostAnswer{Store: m.store, prefix: ledger.NetworkPrefix})
		before := m.keys()
		p := m.pod("a", ownersModes["vf"]...)
		if err := p.add(); !errors.Is(err, store.ErrAmbiguous) {
			t.Errorf("the answer of the network's record is lost: %v", err)
		}
		m.must(p.add())
		m.dockerTakes(p.at.Addresses...)
		m.must(p.del())
		m.settled()
		if diff := cmp.Diff(before, m.keys()); diff != "" {
			t.Errorf("afterwards (-want +got):\n%s", diff)
		}
	})
}

// awayStore is a store whose leases cannot be reached while it is away: a call waits as long as it may.
type awayStore struct {
	store.Store
	away atomic.Bool
}

func (a *awayStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if a.away.Load() && slices.ContainsFunc(then, func(op store.Op) bool { return strings.HasPrefix(op.Key, "ipam/lease/") }) {
		<-ctx.Done()
		return store.Result{}, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
	return a.Store.Txn(ctx, conds, then)
}

// TestOwnersStoreAway: a pod is detached in the time that its caller has, also while the store of addresses is away. The device is free then, and
// the address later.
func TestOwnersStoreAway(t *testing.T) {
	t.Parallel()
	onSharedMachine(t, func(m *sharedMachine) {
		before := m.keys()
		m.stop()
		s := &awayStore{Store: m.store}
		m.start(s)
		p := m.pod("a", ownersModes["vf"]...)
		m.must(p.add())
		m.must(m.kernel.MoveHome(p.req.Owner.Netns, "eth1", p.at.Name))
		s.away.Store(true)
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
		defer cancel()
		began := time.Now()
		_, err := m.network.Attachments.Detach(ctx, &p.req.Owner)
		m.must(err)
		if took := time.Since(began); took > 2*time.Second {
			m.Errorf("it took %v", took)
		}
		now, err := m.network.Attachments.Check(m.ctx, &p.req.Owner)
		if m.must(err); now.ID != "" {
			m.Errorf("it has %+v", now)
		}
		s.away.Store(false)
		m.settled()
		if diff := cmp.Diff(before, m.keys()); diff != "" {
			m.Errorf("left:\n%s", diff)
		}
	})
}

// TestOwnersPools: pods and Docker's containers of one pool never have an address twice. A pod has an address, the one that it asks for if it is
// free, and the gateway; with the pod it is free again, and with the last pod the network's share of the pool is.
func TestOwnersPools(t *testing.T) {
	t.Parallel()
	onSharedMachine(t, func(m *sharedMachine) {
		before := m.keys()
		a, b := m.pod("a", ownersModes["vf"]...), m.pod("b", ownersModes["vf"]...)
		m.must(a.add())
		if diff := cmp.Diff([][]string{{"10.1.0.1/28"}, {"10.1.0.14"}}, [][]string{a.at.Addresses, a.at.Gateways}); diff != "" {
			t.Error(diff)
		}
		m.dockerTakes(a.at.Addresses...)
		b.req.Addresses = []string{"10.1.0.1/28"}
		if err := b.add(); err == nil || !strings.HasPrefix(err.Error(), "pool 10.1.0.0/28: request address 10.1.0.1: in use since ") || !strings.HasSuffix(err.Error(), ` by container "a"`) {
			t.Errorf("an address in use: %v", err)
		}
		for text, want := range map[string]string{
			"10.2.0.1": "pool 10.1.0.0/28: request address 10.2.0.1: not in the subnet",
			"fd00::2":  "address fd00::2: the network has no subnet of its family",
			"x":        `address "x": ParseAddr("x"): unable to parse IP`,
		} {
			b.req.Addresses = []string{text}
			if err := b.add(); err == nil || err.Error() != want {
				t.Errorf("address %s: %v", text, err)
			}
		}
		b.req.Addresses = []string{"10.1.0.9"}
		m.must(b.add())
		if err := a.add(); err == nil {
			t.Error("a second device for one attachment")
		}
		m.dockerTakes(a.at.Addresses[0], b.at.Addresses[0])
		m.must(a.del())
		m.must(a.detach()) // its answer was lost
		b2 := m.pod("b2", ownersModes["vf"]...)
		b2.req.Addresses = []string{"10.1.0.1"}
		m.must(b2.add())
		m.must(b.del())
		m.must(b2.del())
		if diff := cmp.Diff(before, m.keys()); diff != "" {
			t.Errorf("left:\n%s", diff)
		}
	})
}

// TestOwnersNewNetwork: pods that start at once on a network that is not there yet share its pool, and one that is refused leaves nothing.
func TestOwnersNewNetwork(t *testing.T) {
	t.Parallel()
	onSharedMachine(t, func(m *sharedMachine) {
		before := m.keys()
		done := make(chan error)
		var pods []*sharedPod
		for i := range 6 {
			p := m.pod(fmt.Sprint("p", i), ownersModes["macvlan"]...)
			pods = append(pods, p)
			go func() { done <- p.add() }()
		}
		for range pods {
			m.must(<-done)
		}
		given := map[string]bool{}
		for _, p := range pods {
			given[p.at.Addresses[0]] = true
		}
		shares := slices.DeleteFunc(m.keys(), func(k string) bool { return !strings.HasPrefix(k, "ipam/share/") })
		if len(given) != 6 || len(shares) != 2 {
			t.Errorf("addresses %v, shares %v", given, shares)
		}
		for _, p := range pods {
			m.must(p.del())
		}
		for want, change := range map[string]func(r *admin.AttachRequest){
			"pool 10.1.0.0/28: request gateway 10.1.1.1: the gateway is 10.1.0.14 already": func(r *admin.AttachRequest) { r.IPAM.Subnets[0].Gateway = "10.1.1.1" },
			"ipam: subnet 10.1.0.0/28: 10.1.0.0/28 is there already; one of each family is possible": func(r *admin.AttachRequest) {
				r.IPAM.Subnets = append(r.IPAM.Subnets, admin.Subnet{Subnet: "10.1.0.0/28"})
			},
			`pool 10.2.0.0/28: request: pool "lan" has subnet 10.1.0.0/28; networks that share a pool must say the same of it`: func(r *admin.AttachRequest) {
				r.IPAM.Subnets = []admin.Subnet{{Subnet: "10.2.0.0/28"}}
			},
			`option "netdevise": unknown; did you mean netdevice?`:                           func(r *admin.AttachRequest) { r.Options["netdevise"] = "ens2" },
			"option netdevice: ens9: no such device; the NICs of this host are ens1f0, ens2": func(r *admin.AttachRequest) { r.Options["netdevice"] = "ens9" },
		} {
			p := m.pod("refused", ownersModes["macvlan"]...)
			change(&p.req)
			if err := p.add(); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error is\n%v\nwant\n%s", err, want)
			}
			if diff := cmp.Diff(before, m.keys()); diff != "" {
				t.Errorf("%s: left:\n%s", want, diff)
			}
		}
	})
}

// TestOwnersFamilies: a pod has an address of each family.
func TestOwnersFamilies(t *testing.T) {
	t.Parallel()
	onSharedMachine(t, func(m *sharedMachine) {
		before := m.keys()
		p := m.pod("a", ownersModes["vf"]...)
		p.req.IPAM = &admin.IPAM{Subnets: []admin.Subnet{{Subnet: "fd00::/64", Gateway: "fd00::1"}, {Subnet: "10.9.0.0/24", Gateway: "10.9.0.1", Range: "10.9.0.128/25"}}}
		p.req.Addresses = []string{"fd00::7"}
		m.must(p.add())
		if diff := cmp.Diff([][]string{{"10.9.0.128/24", "fd00::7/64"}, {"10.9.0.1", "fd00::1"}}, [][]string{p.at.Addresses, p.at.Gateways}); diff != "" {
			t.Error(diff)
		}
		m.must(p.del())
		if diff := cmp.Diff(before, m.keys()); diff != "" {
			t.Errorf("left:\n%s", diff)
		}
	})
}

// TestOwnersAddressInUse: a pod that is detached while it uses its device, as by a garbage collection of its runtime, keeps its address until its
// namespace ends, also if the plugin is restarted meanwhile.
func TestOwnersAddressInUse(t *testing.T) {
	t.Parallel()
	for mode, options := range ownersModes {
		t.Run(mode, func(t *testing.T) {
			onSharedMachine(t, func(m *sharedMachine) {
				before := m.keys()
				p := m.pod("a", options...)
				m.must(p.add())
				m.must(p.detach())
				m.settled()
				m.dockerTakes(p.at.Addresses...)
				m.stop()
				m.start(m.store)
				m.settled()
				m.dockerTakes(p.at.Addresses...)
				m.kernel.KillNS(p.req.Owner.Netns, 0)
				m.settled()
				if diff := cmp.Diff(before, m.keys()); diff != "" {
					t.Errorf("left:\n%s", diff)
				}
			})
		})
	}
}

// deadStore is the ledger of a process that dies at a call to the kernel.
type deadStore struct {
	store.Store
	dead *atomic.Bool
}

func (d deadStore) Txn(ctx context.Context, conds []store.Cond, ops []store.Op) (store.Result, error) {
	if d.dead.Load() {
		return store.Result{}, store.ErrUnavailable
	}
	return d.Store.Txn(ctx, conds, ops)
}

// dying returns a ledger for a process that dies at the k-th transaction, before it is applied or after, or at the k-th change of a device.
func (m *sharedMachine) dying(how string, k int) (s store.Store, died func() bool) {
	errDead := errors.New("killed")
	dead, last := new(atomic.Bool), len(m.kernel.Calls())+k
	s, died = deadStore{m.store, dead}, dead.Load
	if fate, ok := map[string]storetest.Fate{"lost": storetest.Lost, "unanswered": storetest.Unanswered}[how]; ok {
		c := storetest.NewCrash(m.store, k, fate)
		s, died, last = c, c.Dead, math.MaxInt
	}
	m.kernel.OnCall(func(n int, _ string) error {
		if n >= last {
			dead.Store(true)
		}
		if died() {
			return errDead
		}
		return nil
	})
	return s, died
}

// TestOwnersCrash kills the process at each transaction and at each change of a device while a pod starts and ends. While the pod uses its
// address, Docker does not get it; when the pod has ended, with DEL or without, nothing is left.
func TestOwnersCrash(t *testing.T) {
	t.Parallel()
	for mode, options := range ownersModes {
		for _, how := range []string{"lost", "unanswered", "kernel"} {
			for _, detached := range []bool{true, false} {
				for k, again := 1, true; again; k++ {
					again = false // unless the subtest runs: it may be filtered out
					t.Run(fmt.Sprintf("%s/%s/detached=%t/%d", mode, how, detached, k), func(t *testing.T) {
						onSharedMachine(t, func(m *sharedMachine) { again = m.crash(how, k, detached, options) })
					})
				}
			}
		}
	}
}

// crash is one crash of TestOwnersCrash; died is false if the pod's life has less steps.
func (m *sharedMachine) crash(how string, k int, detached bool, options []string) (died bool) {
	before, machine := m.keys(), m.kernel.String()
	m.stop()
	s, dead := m.dying(how, k)
	m.start(s)
	p := m.pod("a", options...)
	if p.add() == nil && detached {
		_ = p.del() // the process may die in it
	}
	died = dead()
	m.stop()
	m.kernel.OnCall(nil)
	m.start(m.store)
	m.dockerTakes(p.addresses()...)
	m.settled()
	m.dockerTakes(p.addresses()...)
	m.kernel.KillNS(p.req.Owner.Netns, 0)
	if detached {
		m.must(p.detach())
	} else {
		m.must(os.Remove(p.req.Owner.Netns))
	}
	m.settled()
	if diff := cmp.Diff(before, m.keys()); diff != "" {
		m.Errorf("left:\n%s", diff)
	}
	if now := m.kernel.String(); now != machine {
		m.Errorf("the machine was\n%s\nand is\n%s", machine, now)
	}
	return died
}
