package netdrv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/store"
)

// A crowd is containers that come and go at the same time, and who has which VF at the moment.
type crowd struct {
	m       *machine
	network string

	mu   sync.Mutex        // guards held
	held map[string]string // container by the MAC that it has
}

// start starts a container; it may be called from any goroutine.
func (c *crowd) start(container string) (source string, err error) {
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

// stop ends a container: in an orderly way, or killed and late.
func (c *crowd) stop(container, source string, late time.Duration) error {
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

// everybody does the same for each of n containers at the same time.
func everybody(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// TestCrowd starts and stops as many containers as there are VFs, all at once and again and again, as the engine does at
// boot. No VF is lent twice, one container too many is refused, and in the end all is as before.
func TestCrowd(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		c := &crowd{m: m, network: "n", held: map[string]string{}}
		var sources [7]string
		for round := range 4 {
			name := func(i int) string { return fmt.Sprintf("r%dc%d", round, i) }
			want(t, everybody(7, func(i int) (err error) {
				sources[i], err = c.start(name(i))
				return err
			}))
			_, err := c.start("late")
			if err == nil || !strings.HasPrefix(err.Error(), "ens1f0 (0000:01:00.0): all 7 vfs are in use: "+
				"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint r") {
				t.Errorf("one too many: error is %v", err)
			}
			m.checkInvariants()
			want(t, everybody(7, func(i int) error {
				return c.stop(name(i), sources[i], time.Duration(round*i%3)*time.Second)
			}))
		}
		m.settled()
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestRestartTogether: containers on all VFs are restarted at the same time, while the kernel takes its time to bring
// the VFs home. Every one of them gets a VF again.
func TestRestartTogether(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		c := &crowd{m: m, network: "n", held: map[string]string{}}
		want(t, everybody(7, func(i int) error {
			first, second := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
			source, err := c.start(first)
			if err != nil {
				return err
			}
			if err := c.stop(first, source, 5*time.Second); err != nil {
				return err
			}
			if source, err = c.start(second); err != nil {
				return err
			}
			return c.stop(second, source, 0)
		}))
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestOneEndpointManyCallers: the same CreateEndpoint several times at once makes one endpoint.
func TestOneEndpointManyCallers(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		var macs [5]string
		want(t, everybody(len(macs), func(i int) (err error) {
			macs[i], err = m.createEndpoint("a", "n", plugin.EndpointInterface{})
			return err
		}))
		for _, mac := range macs {
			if mac == "" || mac != macs[0] {
				t.Errorf("answered %v, want one mac", macs)
			}
		}
		m.wantKeys("dev/0000:01:10.0", "ep/n/"+endpoint("a"), "net/n", "pf/0000:01:00.0")
		want(t, everybody(3, func(int) error { return m.deleteFrom("a", "n") }))
		m.wantKeys("net/n", "pf/0000:01:00.0")
	})
}

// A slowLedger answers a write that contains a text late.
type slowLedger struct {
	store.Store
	text string
	late time.Duration
}

func (s slowLedger) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	res, err := s.Store.Txn(ctx, conds, then)
	for _, op := range then {
		if bytes.Contains(op.Value, []byte(s.text)) {
			<-time.After(s.late)
		}
	}
	return res, err
}

// TestOvertaken: while DeleteEndpoint still waits for the ledger to confirm, the reconciler has put the VF back and the
// next container has it already. DeleteEndpoint must not put it back a second time.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.stop()
		m.start(slowLedger{m.store, `"state":"freeing"`, 2 * time.Minute})
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		idle := m.kernel.String()
		source, _ := m.mustRun("a", "n")
		m.leave("a")
		want(t, m.kernel.MoveHome("a", "eth0", source))
		m.kernel.KillNS("a", 0)
		deleted := make(chan error)
		go func() { deleted <- m.deleteFrom("a", "n") }()
		m.after(90 * time.Second)
		_, err := m.createEndpoint("b", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
		want(t, err)
		ready := m.kernel.String()
		want(t, <-deleted)
		m.wantHost(ready)
		join, err := m.join("b", "n")
		want(t, err)
		want(t, m.kernel.MoveToNS("b", join.InterfaceName.SrcName, "eth0"))
		m.where["b"] = place{"n", join.InterfaceName.SrcName, "eth0"}
		m.end("b")
		m.wantHost(idle)
		m.wantKeys("net/n")
	})
}
