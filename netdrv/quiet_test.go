package netdrv_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"
)

// TestOrdinaryEndIsQuiet: the end of a container logs no warning, whether its device comes home before DeleteEndpoint or a while after it,
// and is busy for a moment then. A device that stays away for longer is warned of once.
func TestOrdinaryEndIsQuiet(t *testing.T) {
	t.Parallel()
	kinds := map[string]struct {
		make    func(m *machine)
		options []string
	}{
		"vf":           {oneVF, []string{"netdevice=ens1f0", "vlan=4"}},
		"whole device": {nic, []string{"netdevice=ens2", "mode=passthrough"}},
		"bond":         {pool, []string{"netdevice=ens1f0,ens2f0", "bond=active-backup", "numvfs=2"}},
		"child":        {nic, []string{"netdevice=ens2", "mode=macvlan"}},
	}
	for kind, c := range kinds {
		for _, late := range []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second, 5 * time.Minute} {
			t.Run(kind+" "+late.String(), func(t *testing.T) {
				t.Parallel()
				story(t, func(m *machine) {
					c.make(m)
					m.mustCreate("n", c.options...)
					logged := m.logTo(zapcore.WarnLevel)
					m.mustRun("a", "n")
					m.leave("a")
					m.kernel.KillNS("a", late)
					busy := true
					m.kernel.OnCall(func(_ int, what string) error {
						if busy && strings.Contains(what, "set name") {
							busy = false
							return syscall.EBUSY
						}
						return nil
					})
					m.delete("a")
					m.settled()
					m.wantKeysBut("pf/", "net/n")
					want := 0
					if late > time.Minute && (kind == "vf" || kind == "whole device") {
						want = 1
					}
					if logged.Len() != want {
						t.Errorf("%d warnings, want %d: %v", logged.Len(), want, logged.All())
					}
				})
			})
		}
	}
}

// TestOneLinePerContainer: at level info a container has one line when it is attached, with its addresses and what took how long, and one
// when its device is free again.
func TestOneLinePerContainer(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		logged := m.logTo(zapcore.InfoLevel)
		m.after(time.Second)
		logged.TakeAll() // of the start
		_, mac := m.mustRun("a", "n")
		m.end("a")
		m.settled()
		var got []string
		for _, e := range logged.All() {
			got = append(got, e.Message)
		}
		if diff := cmp.Diff([]string{"attached", "released"}, got); diff != "" {
			t.Fatalf("log (-want +got):\n%s", diff)
		}
		f := logged.All()[0].ContextMap()
		if f["device"] != "vf 0 of ens1f0 (0000:01:10.0)" || f["mac"] != mac || f["network"] == "" || f["endpoint"] == "" {
			t.Errorf("attached: %v", f)
		}
		for _, step := range []string{"claim", "setup", "join"} {
			if _, ok := f[step].(time.Duration); !ok {
				t.Errorf("attached: %s is %v, want a duration", step, f[step])
			}
		}
	})
}

// wantKeysBut is wantKeys without the keys that have a prefix.
func (m *machine) wantKeysBut(prefix string, want ...string) {
	m.t.Helper()
	for _, key := range m.keys() {
		if strings.HasPrefix(key, prefix) {
			want = append(want, key)
		}
	}
	m.wantKeys(want...)
}

// TestForgottenEndpointIsLogged: the warning says in which state the device was.
func TestForgottenEndpointIsLogged(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		source, _ := m.mustRun("a", "n")
		m.leave("a")
		m.must(m.kernel.MoveHome("a", "eth0", source)) // and DeleteEndpoint is lost
		logged := m.logTo(zapcore.WarnLevel)
		m.settled()
		all := logged.FilterMessage("endpoint was forgotten by the engine or by a crash").All()
		if len(all) != 1 || all[0].ContextMap()["state"] != "lent" || all[0].ContextMap()["to"] != nil {
			t.Errorf("logged: %v", all)
		}
	})
}
