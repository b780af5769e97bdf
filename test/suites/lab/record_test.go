//go:build lab

package lab

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw/hwtest"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestRecord: a record of the NIC, which has no VFs, is the file that the fake kernel plays. It changes a VF that it makes, and all is as it was.
func TestRecord(t *testing.T) {
	asBefore(t)
	record, err := Try("./passthroughctl", "record", "--touch", "--yes", pf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := hwtest.DiffCard(t, "igb-82576", []byte(record)); diff != "" {
		t.Errorf("hw/hwtest/cards/igb-82576.json is not as the NIC is (-file +nic):\n%s\nthe record:\n%s", diff, record)
	}
}

// TestRecordBesideContainers: the VF that is changed is a free one, which no container gets meanwhile. If the command is killed, what it has set
// is there until the operator has the plugin restore the VF. A NIC whose VFs all have containers is refused.
func TestRecordBesideContainers(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=2", "-o", "vlan=100")
	Container(t, "web1", "--net", "name=n,driver-opt=vf=0")
	before := Sh(t, "ip link show "+pf) + host(t)
	if out, err := Try("./passthroughctl", "record", "--touch", "--yes", pf); err != nil || !strings.Contains(out, `"made_vfs": false`) {
		t.Errorf("record: %v", err)
	}
	if now := Sh(t, "ip link show "+pf) + host(t); now != before {
		t.Errorf("the host is\n%s\nbut was\n%s", now, before)
	}

	killed := exec.Command("./passthroughctl", "record", "--touch", "--yes", pf)
	said, err := killed.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(said); s.Scan() && s.Text() != "set vlan, priority 3"; {
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	WantLine(t, Sh(t, "./passthroughctl vfs "+pf), pf+"/1", "quarantined", "passthroughctl record")
	_, err = Try("docker", "run", "--rm", "--net", "name=n,driver-opt=vf=1", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "is quarantined: by an administrator: passthroughctl record") {
		t.Errorf("a container on the VF: %v", err)
	}
	Sh(t, "./passthroughctl retry "+pf+"/1")
	Within(t, 10*time.Second, func() string {
		if now := Sh(t, "ip link show "+pf) + host(t); now != before {
			return "the host is\n" + now + "\nbut was\n" + before
		}
		return ""
	})

	Container(t, "web2", "--net", "n")
	_, err = Try("./passthroughctl", "record", "--touch", "--yes", pf)
	if err == nil || !strings.Contains(err.Error(), pf+" ("+pfPCI+"): none of its vfs is free: vf 0 of "+pf+" (") ||
		!strings.HasSuffix(err.Error(), ") is in another network namespace") {
		t.Errorf("with all VFs in containers: %v", err)
	}
}
