package netdrv_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/admin"
)

// operate has something done with a device, and returns what was done or why not.
func (m *machine) operate(r admin.DeviceRequest) string {
	ctx, cancel := m.call()
	defer cancel()
	a, err := m.driver.Operate(ctx, &r)
	if err != nil {
		return err.Error()
	}
	return a.Text
}

// wantOperate has something done with a device, and compares what was done.
func (m *machine) wantOperate(action, device, want string) {
	m.t.Helper()
	if got := m.operate(admin.DeviceRequest{Action: action, Device: device, Reason: "a ticket"}); got != want {
		m.t.Errorf("%s %s:\n%s\nwant %s", action, device, got, want)
	}
}

const (
	vf0PCI   = "0000:01:10.0"
	vf0Label = "vf 0 of ens1f0 (0000:01:10.0)"
)

// TestQuarantineByHand: an administrator takes a free VF out of use. No container gets it, also after the plugin and the machine were
// restarted, until it is put back; nothing is changed on it.
func TestQuarantineByHand(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		before := m.kernel.String()
		m.wantOperate(admin.RetryDevice, vf0PCI, vf0PCI+" is neither in use nor quarantined: it is free, or not a device of the plugin")
		m.wantOperate(admin.QuarantineDevice, vf0PCI, vf0Label+" is out of use; passthroughctl retry puts it back")
		m.wantOperate(admin.QuarantineDevice, vf0PCI, vf0Label+" is quarantined: by an administrator: a ticket; only a free vf can be taken out of use")
		m.wantOperate(admin.FreeDevice, vf0PCI, vf0Label+" is quarantined; passthroughctl retry tries to release it")
		if s, err := m.driver.Status(m.ctx, &admin.StatusRequest{}); err != nil || !s.Devices[0].Retry.IsZero() {
			t.Errorf("it is tried again by itself: %v, %+v", err, s.Devices)
		}
		const refused = "ens1f0 (0000:01:00.0): all 1 vfs are in use: " + vf0Label + " is quarantined: by an administrator: a ticket"
		for _, restart := range []func(){func() {}, m.restart, func() { m.stop(); m.boot = "boot-2"; m.start(m.store) }} {
			restart()
			m.settled()
			start := time.Now()
			if _, _, err := m.run("a", "n"); err == nil || err.Error() != refused {
				t.Errorf("a container starts: %v\nwant %s", err, refused)
			}
			if took := time.Since(start); took > 0 {
				t.Errorf("the refusal took %s", took)
			}
		}
		m.wantHost(before)
		m.wantOperate(admin.RetryDevice, vf0PCI, vf0Label+" is free")
		m.wantHost(before)
		m.mustRun("a", "n")
		m.wantOperate(admin.RetryDevice, vf0PCI, vf0Label+" is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; it is not quarantined")
		m.wantOperate(admin.QuarantineDevice, vf0PCI, vf0Label+" is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; only a free vf can be taken out of use")
		m.wantOperate(admin.QuarantineDevice, "0000:01:00.0", "0000:01:00.0 is not a vf; only vfs can be taken out of use")
		m.wantOperate("lend", vf0PCI, `action "lend": must be quarantine, retry or free`)
		m.end("a")
		m.settled()
		m.wantKeys("net/n")
	})
}

// TestRetryByHand: a VF that could not be restored is released as soon as an administrator asks for it, if what kept it is over. Otherwise
// the answer says why not.
func TestRetryByHand(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		broken := true
		m.kernel.OnCall(func(_ int, what string) error {
			if broken && strings.HasSuffix(what, "set vlan 0") {
				return syscall.EIO
			}
			return nil
		})
		m.end("a")
		m.after(time.Minute)
		if got := m.operate(admin.DeviceRequest{Action: admin.RetryDevice, Device: vf0PCI}); !strings.HasPrefix(got, vf0Label+" is still quarantined: ") {
			t.Errorf("retry: %s", got)
		}
		broken = false
		m.wantOperate(admin.RetryDevice, vf0PCI, vf0Label+" is free")
		m.wantKeysBut("pf/", "net/n")
	})
}

// TestFreeByHand: an administrator frees the device of a container that the engine does not have any more, and nothing of it is left. A device
// that is in a container is free when that has ended, and that of another endpoint is not freed.
func TestFreeByHand(t *testing.T) {
	t.Parallel()
	for _, inContainer := range []bool{false, true} {
		story(t, func(m *machine) {
			oneVF(m)
			m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
			before := m.kernel.String()
			m.mustRun("a", "n")
			m.wantOperate(admin.FreeDevice, vf0PCI, vf0Label+" is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; that is another endpoint than ")
			want := vf0Label + " is free"
			if inContainer {
				want = vf0Label + " will be free when it is home: "
			} else {
				m.kernel.KillNS("a", 0)
			}
			got := m.operate(admin.DeviceRequest{Action: admin.FreeDevice, Device: vf0PCI, Endpoint: endpoint("a")})
			if !strings.HasPrefix(got, want) || !inContainer && got != want {
				t.Errorf("free: %s\nwant %s", got, want)
			}
			if inContainer {
				if !m.has("lives in a") && !strings.Contains(m.ledger(), `"state":"freeing"`) {
					t.Errorf("it is not freeing:\n%s", m.ledger())
				}
				m.kernel.KillNS("a", 0)
				m.settled()
			}
			m.wantOperate(admin.FreeDevice, vf0PCI, vf0PCI+" is neither in use nor quarantined: it is free, or not a device of the plugin")
			m.wantHost(before)
			m.wantKeysBut("pf/", "net/n")
			told := []string{"n " + addressOf("a")}
			if inContainer {
				told = nil
			}
			m.forgotten.want(t, "after its device was freed", told...)
		})
	}
}
