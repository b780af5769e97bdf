package netdrv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/store"
)

// A fleet is containers that start and stop concurrently, and which of them has which VF at the moment.
type fleet struct {
	m       *machine
	network string

	mu   sync.Mutex        // guards held
	held map[string]string // containers by their MACs
}

// start starts a container; it may be called from any goroutine.
func (c *fleet) start(container string) (source string, err error) {
	mac, err := c.m.createEndpoint(container, c.network, plugin.EndpointInterface{Address: "10.0.0.2/24"})
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	other, taken := c.held[mac]
	c.held[mac] = container
	c.mu.Unlock()
	if taken {
		return "", fmt.Errorf("%s was given %s, which %s has", container, mac, other)
	}
	join, err := c.m.join(container, c.network)
	if err != nil {
		return "", err
	}
	if err := c.m.kernel.MoveToNS(container, join.InterfaceName.SrcName, "eth0"); err != nil {
		return "", err
	}
	if inside := c.m.kernel.InNS(container).Links(); len(inside) != 1 || string(inside[0].MAC) != mac {
		return "", fmt.Errorf("%s has %+v, want one device with %s", container, inside, mac)
	}
	return join.InterfaceName.SrcName, nil
}

// stop ends a container: stopped, or killed and with its device late.
func (c *fleet) stop(container, source string, late time.Duration) error {
	c.mu.Lock()
	for mac, who := range c.held {
		if who == container {
			delete(c.held, mac)
		}
	}
	c.mu.Unlock()
	err := c.m.leaveFrom(container, c.network)
	if late == 0 {
		err = errors.Join(err, c.m.kernel.MoveHome(container, "eth0", source))
	}
	c.m.kernel.KillNS(container, late)
	return errors.Join(err, c.m.deleteFrom(container, c.network))
}

// inParallel calls a function for each of n containers concurrently.
func inParallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// TestManyAtOnce starts and stops as many containers as there are VFs, concurrently and several times, as the engine does at boot. No VF is
// allocated twice, one container too many is refused, and in the end all is as before.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		c := &fleet{m: m, network: "n", held: map[string]string{}}
		var sources [7]string
		for round := range 4 {
			name := func(i int) string { return fmt.Sprintf("r%dc%d", round, i) }
			m.must(inParallel(7, func(i int) (err error) {
				sources[i], err = c.start(name(i))
				return err
			}))
			_, err := c.start("late")
			if err == nil || !strings.HasPrefix(err.Error(), "ens1f0 (0000:01:00.0): all 7 vfs are in use: "+
				"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint r") {
				t.Errorf("one too many: error is %v", err)
			}
			m.checkInvariants()
			m.must(inParallel(7, func(i int) error {
				return c.stop(name(i), sources[i], time.Duration(round*i%3)*time.Second)
			}))
		}
		m.settled()
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestRestartTogether: containers on all VFs are restarted concurrently, while the VFs come home late. Each gets a VF again.
func TestRestartTogether(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		c := &fleet{m: m, network: "n", held: map[string]string{}}
		var sources [7]string
		m.must(inParallel(7, func(i int) (err error) {
			name := fmt.Sprintf("a%d", i)
			source, err := c.start(name)
			if err == nil {
				err = c.stop(name, source, 5*time.Second)
			}
			if err == nil {
				sources[i], err = c.start(fmt.Sprintf("b%d", i))
			}
			return err
		}))
		m.must(inParallel(7, func(i int) error { return c.stop(fmt.Sprintf("b%d", i), sources[i], 0) }))
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestReleasedWhileLooking: a VF comes home and is released while a call looks for a free one. The call gets it, and does not take what it saw
// of the VF before for a VF in a namespace of another program.
func TestReleasedWhileLooking(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.stop()
		ledger := &listHook{Store: m.store}
		m.startOn(ledger, m.kernel)
		m.mustCreate("n", "netdevice=ens1f0")
		source, _ := m.mustRun("a", "n")
		m.leave("a")
		m.delete("a") // its namespace lives on, with the VF in it
		released := func() {
			m.must(m.kernel.MoveHome("a", "eth0", source))
			m.after(3 * time.Second)
		}
		ledger.before.Store(&released)
		m.mustRun("b", "n")
		m.wantIn("0000:01:10.0", "b")
	})
}

// A listHook calls a function once, before allocations are listed.
type listHook struct {
	store.Store
	before atomic.Pointer[func()]
}

func (s *listHook) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if prefix == alloc.Prefix {
		if before := s.before.Swap(nil); before != nil {
			(*before)()
		}
	}
	return s.Store.Range(ctx, prefix, fn)
}

// TestOneEndpointManyCallers: several concurrent CreateEndpoint calls for one endpoint create one allocation.
func TestOneEndpointManyCallers(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		var macs [5]string
		m.must(inParallel(len(macs), func(i int) (err error) {
			macs[i], err = m.createEndpoint("a", "n", plugin.EndpointInterface{})
			return err
		}))
		for _, mac := range macs {
			if mac == "" || mac != macs[0] {
				t.Errorf("answered %v, want one mac", macs)
			}
		}
		m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n", "pf/0000:01:00.0")
		m.must(inParallel(3, func(int) error { return m.deleteFrom("a", "n") }))
		m.wantKeys("net/n", "pf/0000:01:00.0")
	})
}

// A slowLedger delays writes after which a record contains a text that it did not contain before, before they take effect and before they
// are answered.
type slowLedger struct {
	store.Store
	text  string
	late  time.Duration
	begun chan struct{} // gets a value when such a write begins
}

func (s slowLedger) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	slow := slices.ContainsFunc(then, func(op store.Op) bool {
		was, err := s.Store.Get(ctx, op.Key)
		return bytes.Contains(op.Value, []byte(s.text)) && (err != nil || !bytes.Contains(was.Value, []byte(s.text)))
	})
	if !slow {
		return s.Store.Txn(ctx, conds, then)
	}
	s.begun <- struct{}{}
	<-time.After(s.late)
	res, err := s.Store.Txn(ctx, conds, then)
	<-time.After(s.late)
	return res, err
}

// TestSlowLedger: while DeleteEndpoint waits for the ledger's answer, the record says already that the VF is being freed. The reconciler does
// not touch it, so the next container gets it only after DeleteEndpoint: a VF that is restored under its new owner would lose its VLAN.
func TestSlowLedger(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.stop()
		slow := slowLedger{m.store, `"state":"freeing"`, 3 * time.Second, make(chan struct{}, 9)}
		m.start(slow)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		idle := m.kernel.String()
		source, _ := m.mustRun("a", "n")
		m.leave("a")
		m.must(m.kernel.MoveHome("a", "eth0", source))
		m.kernel.KillNS("a", 0)
		m.must(inParallel(2, func(i int) error {
			if i == 0 {
				return m.deleteFrom("a", "n")
			}
			<-slow.begun
			<-time.After(4 * time.Second)
			_, err := m.createEndpoint("b", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
			return err
		}))
		states := m.vfStates("ens1f0")
		if states[0].VLAN.ID != 4 {
			t.Errorf("the vf of b is %+v; want it in vlan 4", states)
		}
		delete(m.where, "a")
		m.must(m.deleteFrom("b", "n"))
		m.wantHost(idle)
		m.wantKeys("net/n")
	})
}

// TestChildrenDoNotQueue: children that are created concurrently, and do not compete for anything, do not wait for each other's writes to the
// ledger.
func TestChildrenDoNotQueue(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		const many = 20
		nic(m)
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan")
		m.stop()
		m.start(slowLedger{m.store, `"state":"claimed"`, time.Second, make(chan struct{}, many)})
		name := func(i int) string { return fmt.Sprintf("c%d", i) }
		begun := time.Now()
		m.must(inParallel(many, func(i int) error {
			_, err := m.createEndpoint(name(i), "n", plugin.EndpointInterface{})
			return err
		}))
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%d took %s, with a ledger that takes 2 s for each", many, took)
		}
		m.must(inParallel(many, func(i int) error { return m.deleteFrom(name(i), "n") }))
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestReconcilerWasQuicker: DeleteEndpoint comes while the reconciler is freeing the endpoint as an orphan.
func TestReconcilerWasQuicker(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.stop()
		slow := slowLedger{m.store, `"state":"freeing"`, 3 * time.Second, make(chan struct{}, 9)}
		m.start(slow)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		idle := m.kernel.String()
		_, err := m.createEndpoint("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
		m.must(err)
		<-slow.begun // it has found the orphan and is writing its state
		m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n")
		m.must(m.deleteFrom("a", "n"))
		m.wantHost(idle)
		m.wantKeys("net/n")
	})
}
