//go:build engine

package engine

import (
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestDeviceNames: a name that the administrator has given to devices, in a file or in DEVICES, stands for them in the
// option netdevice.
func TestDeviceNames(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Refused(t, "option netdevice: fabric-a: no such device", "network", "create", "-d", Plugin, "-o", "netdevice=fabric-a", "x")
	file := Sh(t, "echo /var/lib/docker/plugins/$(docker plugin inspect -f '{{.ID}}' "+Plugin+")/propagated-mount/devices")
	Sh(t, "echo 'fabric-a = pt0 # storage' > "+file)
	t.Cleanup(func() { Sh(t, "rm "+file) })
	set := func(value string) { // it cannot be set while it is enabled
		Docker(t, "plugin", "disable", "-f", Plugin)
		Docker(t, "plugin", "set", Plugin, "DEVICES="+value)
		Docker(t, "plugin", "enable", Plugin)
	}
	set("fabric-b=pt1")
	t.Cleanup(func() { set("") })
	for name, device := range map[string]string{"fabric-a": "pt0", "fabric-b": "pt1"} {
		passthrough(t, name, name, "10.20.0.0/24")
		Run(t, "ip", "link", "show", device)
		Container(t, "on-"+name, "--net", name)
		if link, err := Try("ip", "link", "show", device); err == nil {
			t.Errorf("%s, which is %s, is still in the host: %s", device, name, link)
		}
	}
}
