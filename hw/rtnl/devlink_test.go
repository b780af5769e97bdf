package rtnl

import (
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// TestHealthReporter: an answer is read as mlx5 gives it (net/devlink/health.c, devlink_nl_health_reporter_fill, Linux 6.12). One without a reporter,
// and one that is cut off, are no crash.
func TestHealthReporter(t *testing.T) {
	number := func(attr int, n uint64) *nl.RtAttr {
		raw := make([]byte, 8)
		nl.NativeEndian().PutUint64(raw, n)
		return nl.NewRtAttr(attr, raw)
	}
	reporter := nl.NewRtAttr(unix.DEVLINK_ATTR_HEALTH_REPORTER|unix.NLA_F_NESTED, nil)
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(unix.DEVLINK_ATTR_HEALTH_REPORTER_NAME, nl.ZeroTerminated("fw_fatal")),
		nl.NewRtAttr(unix.DEVLINK_ATTR_HEALTH_REPORTER_STATE, []byte{1}),
		number(unix.DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT, 3), number(unix.DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT, 2),
		number(unix.DEVLINK_ATTR_HEALTH_REPORTER_GRACEFUL_PERIOD, 60000),
		nl.NewRtAttr(unix.DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER, []byte{1}),
	} {
		reporter.AddChild(a)
	}
	device := append(nl.NewRtAttr(nl.DEVLINK_ATTR_BUS_NAME, nl.ZeroTerminated("pci")).Serialize(),
		nl.NewRtAttr(nl.DEVLINK_ATTR_DEV_NAME, nl.ZeroTerminated("0000:01:00.0")).Serialize()...)
	r, of, err := healthReporter(append(device, reporter.Serialize()...))
	if want := (hw.HealthReporter{Name: "fw_fatal", Failed: true, Errors: 3, Recoveries: 2, AutoRecover: true}); r != want || of != "pci/0000:01:00.0" || err != nil {
		t.Errorf("%+v of %s, %v", r, of, err)
	}
	if r, of, err := healthReporter(device); r != (hw.HealthReporter{}) || of != "pci/0000:01:00.0" || err != nil {
		t.Errorf("without a reporter: %+v of %s, %v", r, of, err)
	}
	if _, _, err := healthReporter([]byte{200, 0, 114, 0, 1}); err == nil {
		t.Error("an answer that is cut off is read")
	}
}
