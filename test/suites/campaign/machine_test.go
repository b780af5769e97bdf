//go:build lab

package campaign

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// The guest's NICs. The first is up, like a NIC that the host uses itself. The third is up and has addresses and routes, some of them as
// NetworkManager sets them (the connected route by itself, with a metric); /disk/boot configures them again after a power cut.
const (
	nic1 = "enp1s0"
	nic2 = "enp2s0"
	nic3 = "enp3s0"
)

// hostConfig is the host's network configuration, a script that runs at boot before the engine starts.
const hostConfig = `#!/bin/sh
modprobe loop
ip link set enp1s0 up
ip addr add 192.0.2.7/24 dev enp3s0
ip link set enp3s0 up
ip route add 198.51.100.0/24 via 192.0.2.1 dev enp3s0
ip addr add 203.0.113.7/24 dev enp3s0 noprefixroute
ip route add 203.0.113.0/24 dev enp3s0 proto kernel scope link src 203.0.113.7 metric 100
ip route add 198.18.0.0/15 via 203.0.113.1 dev enp3s0 proto static metric 100
`

// prepare prepares a newly started guest for a campaign: it copies this test binary and the plugin's bundle to the disk that survives a
// power cut, configures the host and installs the plugin.
func prepare(t *testing.T) {
	t.Helper()
	if _, err := try("test -x " + looker); err == nil {
		return // prepared by another test
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lab(t, "put", self, looker)
	lab(t, "put", root+"bin/plugin", "/disk/bundle")
	small := filepath.Join(t.TempDir(), "small") // image of the small disk, see onSmallDisk
	Run(t, "truncate", "-s", "4M", small)
	Run(t, "mke2fs", "-q", "-F", "-O", "^has_journal", small)
	lab(t, "put", small, "/disk/small")
	boot(t, hostConfig)
	sh(t, "/disk/boot")
	install(t)
	sh(t, "sync")
}

// boot installs a script that the guest runs at each boot before the engine starts.
func boot(t testing.TB, script string) {
	t.Helper()
	sh(t, "cat >/disk/boot <<'END'\n"+script+"END\nchmod +x /disk/boot; sync")
}

// install creates and enables the plugin.
func install(t testing.TB) {
	t.Helper()
	sh(t, "docker plugin create "+Plugin+" /disk/bundle && docker plugin enable "+Plugin)
}

// powerCut cuts the guest's power and boots it again.
func powerCut() error {
	for _, verb := range []string{"off", "on"} {
		if _, err := Try(root+"scripts/lab", verb); err != nil {
			return fmt.Errorf("lab %s: %w", verb, err)
		}
	}
	return nil
}

// raw runs a command line in the guest and returns stdout unchanged.
func raw(line string) ([]byte, error) {
	var errs bytes.Buffer
	cmd := exec.Command(root+"scripts/lab", "sh", line)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %s", line, strings.TrimSpace(errs.String()))
	}
	return out, nil
}

// pciOf returns the PCI address of one of the NICs.
func pciOf(nic string) string { return "0000:0" + nic[3:4] + ":00.0" }

// state is the plugin's state directory in the guest, as a shell expression.
const state = `"/var/lib/docker/plugins/$(docker plugin inspect -f '{{.Id}}' ` + Plugin + `)/propagated-mount"`
