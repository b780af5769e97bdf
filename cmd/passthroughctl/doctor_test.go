package main

import (
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestHostRules: network software that runs on the host without its rule is a warning, with the command that installs the rule.
func TestHostRules(t *testing.T) {
	file := &fstest.MapFile{}
	for _, c := range []struct {
		host fstest.MapFS
		want []string
	}{
		{fstest.MapFS{}, nil},
		{fstest.MapFS{"run/NetworkManager/devices/1": file}, []string{"install -m 644 scripts/host-rules/71-passthrough-vfs.rules " +
			"/etc/udev/rules.d/71-passthrough-vfs.rules"}},
		{fstest.MapFS{"run/NetworkManager/devices/1": file, "etc/udev/rules.d/71-passthrough-vfs.rules": file}, nil},
		{fstest.MapFS{"run/systemd/netif/state": file, "etc/udev/rules.d/71-passthrough-vfs.rules": file}, []string{
			"install -m 644 scripts/host-rules/05-passthrough-vfs.network /etc/systemd/network/05-passthrough-vfs.network"}},
	} {
		var remedies []string
		for _, f := range checkHostRules(c.host) {
			if f.Severity != warning {
				t.Errorf("%+v is no warning", f)
			}
			remedies = append(remedies, f.Remedy)
		}
		if diff := cmp.Diff(c.want, remedies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", fmt.Sprint(c.host), diff)
		}
	}
}
