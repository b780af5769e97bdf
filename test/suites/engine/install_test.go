//go:build engine

package engine

import (
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestInstall installs the plugin under another name beside the one that the tests use, and removes it.
func TestInstall(t *testing.T) {
	const name = "mellanox/passthrough:latest"
	other := filepath.Join(t.TempDir(), "bundle") // the engine refuses to create the same content twice
	Sh(t, "cp -a "+bundle+" "+other+" && sed -i 's/\"description\": \"/&another: /' "+other+"/config.json && echo >"+other+"/rootfs/etc/other")
	Run(t, "../../../scripts/install", other, name, "LOG_LEVEL=debug")
	if state := Docker(t, "plugin", "inspect", "-f", "{{.Enabled}}", name); state != "true" {
		t.Errorf("enabled: %s", state)
	}
	veth(t, "pt0", "10.20.0.1/24")
	Network(t, "n1", "-d", name, "--ipam-driver", name, "--subnet", "10.20.0.0/24", "-o", "netdevice=pt0", "-o", "mode=passthrough")
	if _, err := Try("../../../scripts/uninstall", name); err == nil || !strings.Contains(err.Error(), "n1") {
		t.Errorf("removed in spite of its network: %v", err)
	}
	Docker(t, "network", "rm", "n1")
	Run(t, "../../../scripts/uninstall", name)
	if _, err := Try("docker", "plugin", "inspect", name); err == nil {
		t.Error("it is still there")
	}
}

// TestInstallTwice: an engine takes a bundle once, and the script tells more of that than the engine.
func TestInstallTwice(t *testing.T) {
	out, err := Try("../../../scripts/install", bundle, "second")
	want := "install: " + bundle + " is in the engine already, as " + Plugin + "; it takes a bundle only once.\n" +
		"Use it by that name, or remove it before: make uninstall NAME=" + Plugin
	if err == nil || err.Error() != want {
		t.Errorf("%v, %s; want %s", err, out, want)
	}
	if all := Docker(t, "plugin", "ls", "--format", "{{.Name}}"); all != Plugin {
		t.Errorf("the plugins are %s, want %s alone", all, Plugin)
	}
}
