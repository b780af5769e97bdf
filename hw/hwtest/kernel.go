package hwtest

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// The fake kernel implements what package hw needs of the kernel.
var _ hw.Kernel = (*Kernel)(nil)

// hostNS is the name of the host's namespace.
const hostNS = ""

// Kernel is one machine. Its methods may be called from any goroutine; its fields are to be set before AddPF.
type Kernel struct {
	Sys fs.FS // sysfs

	NoUdev        bool          // names stay as the kernel gives them: eth0, eth1...
	UdevAfter     time.Duration // how long udev takes to name a link that has appeared
	NoLiveRename  bool          // a link that is up cannot be renamed: Linux before 6.2
	NoLiveMAC     bool          // hardware that is up does not change its MAC, as most drivers (eth_prepare_mac_addr_change, Linux 6.12)
	NoImmutable   bool          // it is not told which links cannot leave their namespace: Linux 6.12 to 6.14
	ProcSys       bool          // /proc/sys can be written; in a container it is read-only
	NoKinds       []string      // kinds of link that no module makes
	CPUs          string        // those that there are, "0-7"
	NoProcIRQ     bool          // package hw was not given /proc/irq
	RDMAExclusive bool          // each RDMA device is in one namespace
	NoRDMAModes   bool          // RDMA devices are shared, and there are no modes: Linux before 5.2
	NoRDMAFiles   bool          // no module makes character devices for RDMA devices
	NoIOMMU       bool          // it has none, or that is off

	t testing.TB

	mu         sync.Mutex // guards all below
	released   *sync.Cond // a program has closed a function; see CloseFunction
	tree       *tree
	timers     []*time.Timer
	closed     bool
	links      []*link // in order of their ifindex
	spaces     map[string]bool
	known      []string        // namespaces that a link was moved to from the host
	devices    []*device       // PCI, in order of their making
	drivers    map[string]bool // PCI drivers that have been loaded
	irqs       map[int]*irq    // MSI-X vectors by number
	routes     []hw.Route
	neighbours map[neighbour]hw.MAC
	sessions   []netip.AddrPort
	calls      []string
	onCall     func(n int, what string) error
	heard      []string
	watchers   []chan struct{}
	deaf       bool // links cannot be watched
	indexes    int  // ifindexes given so far
	macs       int  // MACs drawn so far
	virtios    int  // virtio devices made so far
	groups     int  // IOMMU groups made so far
	rdmas      int  // RDMA devices made so far

	rdmaDevices []*rdmaDevice // in order of their making
}

// New returns a machine that has nothing but a loopback link. It ends with the test.
func New(t testing.TB) *Kernel {
	t.Helper()
	k := &Kernel{t: t, tree: newTree(t), spaces: map[string]bool{hostNS: true}, drivers: map[string]bool{}, irqs: map[int]*irq{},
		CPUs: "0-7", neighbours: map[neighbour]hw.MAC{}}
	k.Sys = k.tree
	k.released = sync.NewCond(&k.mu)
	k.tree.dir("class/net")
	k.tree.dir("bus/pci/devices")
	k.tree.file("bus/pci/drivers_probe", "", k.probeStore)
	k.AddLink(hw.Link{Name: "lo", Type: "loopback", MAC: "00:00:00:00:00:00", MTU: 65536, Up: true})
	t.Cleanup(k.close)
	return k
}

// close stops everything that was still to happen.
func (k *Kernel) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.released.Broadcast()
	for _, timer := range k.timers {
		timer.Stop()
	}
}

// afterLocked has do done after d with the lock held: at once for 0, never for less. The caller holds the lock.
func (k *Kernel) afterLocked(d time.Duration, do func()) {
	switch {
	case d < 0:
	case d == 0:
		do()
	default:
		k.timers = append(k.timers, time.AfterFunc(d, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if !k.closed {
				do()
			}
		}))
	}
}

// Calls is what has been asked of the machine through hw.Kernel and hw.Kernel that changes something, in order, also
// what failed: "set ens1f0v0: set mtu 9000", "set ens1f0 vf 3: set vlan 100", "write bus/pci/drivers_probe
// 0000:01:10.0", "add address 192.0.2.1/24 to veth0", "add route 0.0.0.0/0 through veth0", "tune ens1f0v0: set queues 4",
// "irq 31: 0".
func (k *Kernel) Calls() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.calls)
}

// OnCall has fn called before each such call takes effect, with its number, counted from 1 since New, and its text. The
// call fails with fn's error. fn may itself change the machine: it runs without the lock.
func (k *Kernel) OnCall(fn func(n int, what string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onCall = fn
}

// FailAt makes the n-th such call from now on fail with err, and only that one. It takes OnCall's place.
func (k *Kernel) FailAt(n int, err error) {
	at := len(k.Calls()) + n
	k.OnCall(func(i int, _ string) error {
		if i == at {
			return err
		}
		return nil
	})
}

// FailFrom lets n more such calls pass and makes every later one fail with err, as if the process had been killed
// between two of them. It takes OnCall's place.
func (k *Kernel) FailFrom(n int, err error) {
	last := len(k.Calls()) + n
	k.OnCall(func(i int, _ string) error {
		if i > last {
			return err
		}
		return nil
	})
}

// call counts and logs a change and lets the test's hook refuse it; then it makes it with the lock held.
func (k *Kernel) call(do func() error, what func() string) error {
	k.mu.Lock()
	text := what()
	k.calls = append(k.calls, text)
	n, hook := len(k.calls), k.onCall
	k.mu.Unlock()
	if hook != nil {
		if err := hook(n, text); err != nil {
			return hw.FromErrno(err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return hw.FromErrno(do())
}

// drawMAC makes up a MAC as a driver without one does: locally administered, and never the same twice.
func (k *Kernel) drawMAC() hw.MAC {
	k.macs++
	return hw.MAC(fmt.Sprintf("02:00:00:00:%02x:%02x", k.macs>>8&0xff, k.macs&0xff))
}

// Watch implements hw.Kernel.
func (k *Kernel) Watch(ctx context.Context) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deaf {
		return nil, hw.FromErrno(syscall.ENOBUFS)
	}
	k.watchers = append(k.watchers, changed)
	context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if i := slices.Index(k.watchers, changed); i >= 0 {
			k.watchers = slices.Delete(k.watchers, i, i+1)
			close(changed)
		}
	})
	return changed, nil
}

// EndWatches ends all watches, as an error of their sockets does, and with refuse makes new ones fail until it is called again.
func (k *Kernel) EndWatches(refuse bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.watchers {
		close(c)
	}
	k.watchers, k.deaf = nil, refuse
}

// changedLocked notifies the watchers that a link of the host has changed.
func (k *Kernel) changedLocked(l *link) {
	if l.ns != hostNS {
		return
	}
	for _, c := range k.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
