package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
)

// TestLostDevices: status names the container that is without its device, why, and what to do; also one of another owner, and while the
// engine does not answer.
func TestLostDevices(t *testing.T) {
	device := func(label, endpoint, lost string, owner *admin.Owner) admin.Device {
		return admin.Device{Label: label, State: string(alloc.Lent), Since: time.Now().Add(-time.Hour), Endpoint: endpoint, Lost: lost, Owner: owner}
	}
	const again, reset = "is in the host again: the nic was reset, or its driver bound again", "does nothing: its pf was reset, which its driver has not noticed"
	pod := &admin.Owner{Kind: "cni", ID: "pod-7", Netns: "/nosuch", Name: "web"}
	v := &view{status: admin.Status{Devices: []admin.Device{device("vf 0 of ens1f0", "e0", again, nil), device("vf 1 of ens1f0", "e1", "", nil),
		device("vf 2 of ens1f0", "e2", reset, pod)}},
		containers: map[string]attachment{"e0": {container: "web1"}, "e1": {container: "web2"}}}
	of := v.container("e2")
	want := []string{"web1 is without vf 0 of ens1f0, which " + again + "; give it another: docker restart web1",
		of + " is without vf 2 of ens1f0, which " + reset + "; it gets another when it is started again"}
	if diff := cmp.Diff(want, v.deviceProblems()); diff != "" || !strings.Contains(of, "pod-7") && !strings.Contains(of, "web") {
		t.Errorf("(-want +got):\n%s", diff)
	}
	v.containers = nil
	if got := v.deviceProblems()[0]; !strings.HasPrefix(got, "endpoint e0 is without") || strings.Contains(got, "docker restart") {
		t.Errorf("without an engine: %s", got)
	}
}
