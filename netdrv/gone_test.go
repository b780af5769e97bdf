package netdrv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// createUntil is a CreateEndpoint whose caller gives up after a time: it cancels the call, or its time is up.
func (m *machine) createUntil(container, network string, patience time.Duration, hangUp bool) error {
	ctx, cancel := context.WithCancel(m.ctx)
	if hangUp {
		defer time.AfterFunc(patience, cancel).Stop()
	} else {
		ctx, cancel = context.WithTimeout(m.ctx, patience)
	}
	defer cancel()
	_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: network,
		EndpointID: endpoint(container), Interface: &plugin.EndpointInterface{Address: addressOf(container)}})
	return err
}

// TestCallerGone ends the context of CreateEndpoint at every moment of the call. The engine never deletes an endpoint whose creation it gave
// up: the device has to be free at once, and as before.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	fresh := func(m *machine) { // VFs are created, bound, set up and tested
		pf := igb()
		pf.TotalVFs, pf.VFCarrierAfter = 1, 60*time.Millisecond
		m.kernel.AddPF(pf)
	}
	bound := func(m *machine) { // one VF that exists, has to be bound again, and gets carrier late
		pf := igb()
		pf.Up, pf.VFs, pf.TotalVFs, pf.VFCarrierAfter = true, 1, 1, 60*time.Millisecond
		m.kernel.AddPF(pf)
		m.after(time.Minute)
	}
	for name, c := range map[string]struct {
		hardware func(m *machine)
		hangUp   bool
	}{
		"fresh pf, deadline": {fresh, false},
		"fresh pf, hung up":  {fresh, true},
		"bound vf, deadline": {bound, false},
		"bound vf, hung up":  {bound, true},
	} {
		gone := 0
		for patience, done := time.Duration(0), false; !done; patience += 35 * time.Millisecond {
			t.Run(fmt.Sprintf("%s/%s", name, patience), func(t *testing.T) {
				story(t, func(m *machine) {
					c.hardware(m)
					before := m.kernel.String()
					m.mustCreate("n", "netdevice=ens1f0", "vlan=9", "privileged=yes")
					idle := m.keys()
					err := m.createUntil("a", "n", patience, c.hangUp)
					if done = err == nil; done {
						m.must(m.deleteFrom("a", "n"))
					} else if gone++; !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("error is %v, want that of the context", err)
					}
					m.after(time.Second) // its driver may still be creating the netdev
					m.wantKeys(idle...)
					m.mustRun("b", "n")
					m.wantIn("0000:01:10.0", "b")
					m.end("b")
					m.mustRemove("n")
					m.wantHost(before)
					m.wantKeys()
				})
			})
		}
		if gone < 2 {
			t.Errorf("%s: it returned before the caller gave up", name)
		}
	}
}

// TestCallerGoneWhileWaiting: a caller may give up while it waits for a VF that is on its way home. No endpoint is left behind.
func TestCallerGoneWhileWaiting(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0")
		before := m.kernel.String()
		m.mustRun("a", "n")
		m.leave("a")
		m.kernel.KillNS("a", 20*time.Second)
		m.delete("a") // gives up waiting after 3 seconds
		start := time.Now()
		err := m.createUntil("b", "n", 4*time.Second, false)
		wantError(t, err, "ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is on its way back "+
			"from endpoint a-endpoint-0 ("+ipOf("a")+"): context deadline exceeded")
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("gave up after %s, want 4s", took)
		}
		err = m.createUntil("b", "n", 10*time.Second, false)
		wantError(t, err, "ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 of ens1f0 (0000:01:10.0) is on its way back "+
			"from endpoint a-endpoint-0 ("+ipOf("a")+") (waited 6s)")
		m.wantKeys("dev/0000:01:10.0", "net/n")
		m.settled()
		m.wantKeys("net/n")
		m.wantHost(before)
		m.mustRun("b", "n")
		m.end("b")
	})
}

// oneVF adds a PF with one VF that the plugin did not create.
func oneVF(m *machine) {
	pf := igb()
	pf.Up, pf.VFs, pf.TotalVFs = true, 1, 1
	m.kernel.AddPF(pf)
	m.after(time.Minute) // udev has named it
}

// TestCallerGoneFromWholeDevice is TestCallerGone for a whole device whose MAC was set.
func TestCallerGoneFromWholeDevice(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"set alias", "set mac"} {
		t.Run(what, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddVeth("tap0", "tap1")
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=tap0", "mode=passthrough")
				ctx, hangUp := context.WithCancel(m.ctx)
				m.kernel.OnCall(onFirst(what, hangUp))
				_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("a"),
					Interface: &plugin.EndpointInterface{MacAddress: "02:00:00:00:00:42"}})
				wantError(t, err, "ledger unavailable: context canceled")
				m.wantKeys("net/n")
				m.wantHost(before)
				m.mustRun("b", "n")
				m.end("b")
			})
		})
	}
}

// onFirst calls a function once, at the first change of a kind.
func onFirst(what string, do func()) func(int, string) error {
	done := false
	return func(_ int, call string) error {
		if !done && strings.Contains(call, what) {
			done = true
			do()
		}
		return nil
	}
}
