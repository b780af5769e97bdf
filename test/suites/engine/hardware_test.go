//go:build engine

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestHardwareRefused: scripts/test-hw, which make test-hw runs, refuses a NIC that the stories cannot use, and says why. It leaves the engine as it
// was, also if a story fails. No NIC here has VFs: what sysfs says of pt0 is made up, and so is the story.
func TestHardwareRefused(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	folder := t.TempDir()
	script, err := filepath.Abs(top + "/scripts/test-hw")
	if err != nil {
		t.Fatal(err)
	}
	story := "#!/bin/sh\ndocker run --rm lab true && echo \"a story on $PF: $*\"\nexit 3\n"
	if err := os.WriteFile(filepath.Join(folder, "hardware.test"), []byte(story), 0o755); err != nil {
		t.Fatal(err)
	}
	Sh(t, "docker tag lab kept && docker rmi lab")
	defer Sh(t, "docker tag kept lab && docker rmi kept")
	const engine = "docker image ls --format '{{.Repository}}:{{.Tag}}' | sort; docker plugin ls; docker ps -aq; docker network ls -q; ip addr show pt0"
	before := Sh(t, engine)
	try := func(pf, sysfs string) (string, error) {
		return Try("unshare", "-m", "sh", "-ec", "mount -t tmpfs none /sys/class/net; mkdir -p /sys/class/net/pt0/device; cd /sys/class/net/pt0/device; "+
			sysfs+"; cd "+folder+"; exec "+script+" "+pf+" "+folder)
	}
	with := func(total, have int) string {
		return fmt.Sprintf("echo %d >sriov_totalvfs; echo %d >sriov_numvfs", total, have)
	}
	for _, c := range []struct{ pf, sysfs, want string }{
		{"pt9", with(8, 0), "test-hw: pt9: no such netdev, or it has no SR-IOV; passthroughctl nics says why"},
		{"pt0", "true", "test-hw: pt0: no such netdev, or it has no SR-IOV; passthroughctl nics says why"},
		{"pt0", with(8, 3), "test-hw: pt0 has VFs; the stories make their own"},
		{"pt0", with(2, 0), "test-hw: pt0 can have 2 VFs; the stories need 4"},
	} {
		if out, err := try(c.pf, c.sysfs); err == nil || out != "" || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, %s; want %s", c.pf, c.sysfs, err, out, c.want)
		}
	}
	if out, err := try("pt0", with(8, 0)); err == nil || out != "a story on pt0: -test.run ^TestHardware$ -test.v -test.timeout=50m" {
		t.Errorf("a story that fails: %v, %s", err, out)
	}
	Sh(t, "ip addr add 10.20.0.9/24 dev pt0")
	if out, err := try("pt0", with(8, 0)); err == nil || !strings.HasPrefix(err.Error(), "test-hw: pt0: it has the address 10.20.0.9/24; use another NIC") {
		t.Errorf("a NIC that the host uses: %v, %s", err, out)
	}
	Sh(t, "ip addr del 10.20.0.9/24 dev pt0")
	if now := Sh(t, engine); now != before {
		t.Errorf("engine and device are\n%s\nbut were\n%s", now, before)
	}
}
