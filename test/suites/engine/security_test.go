//go:build engine

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestPluginPrivileges: of what the engine gives a managed plugin, which is its default set on top of what is claimed, the
// process keeps the one capability; its socket and its state are for root alone.
func TestPluginPrivileges(t *testing.T) {
	id := Docker(t, "plugin", "inspect", "-f", "{{.Id}}", Plugin)
	veth(t, "pt0", "10.20.0.1/24")
	passthrough(t, "n1", "pt0", "10.20.0.0/24")
	Container(t, "c1", "--net", "n1") // so that it has done its work
	pids := strings.Fields(Sh(t, "pidof driver"))
	if len(pids) != 1 {
		t.Fatalf("processes %v, want that of the plugin alone", pids)
	}
	tasks, err := filepath.Glob("/proc/" + pids[0] + "/task/*/status")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v; want several", tasks, err)
	}
	want := []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000001000", "CapEff:\t0000000000001000",
		"CapBnd:\t0000000000001000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(string(status), "\n"+line+"\n") {
				t.Errorf("%s: no line %q in\n%s", task, line, status)
			}
		}
	}
	root := Docker(t, "info", "-f", "{{.DockerRootDir}}")
	for path, mode := range map[string]string{
		"/run/docker/plugins/" + id + "/passthrough.sock":       "600 0",
		root + "/plugins/" + id + "/propagated-mount":           "700 0",
		root + "/plugins/" + id + "/propagated-mount/ledger.db": "600 0",
	} {
		if got := Run(t, "stat", "-c", "%a %u", path); got != mode {
			t.Errorf("%s has mode and owner %s, want %s", path, got, mode)
		}
	}
}

// TestHostileContainer: whatever a container with CAP_NET_ADMIN does to its device ends with it: MTU and queue length,
// promiscuous mode, addresses, an alias that says that it is the device of another container. It is not renamed here: a veth
// end that the engine cannot move ends with its namespace, which a NIC does not.
func TestHostileContainer(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	const state = "for d in pt0 pt1; do ip -d link show $d | sed 's/^[0-9]*: //; s/qdisc [a-z]*//; s/state [A-Z]*//; s/,LOWER_UP//'; ip -o addr show dev $d | grep -v fe80 || :; done"
	before := Sh(t, state)
	alias := func(device string) string {
		index, mac := Sh(t, "cat /sys/class/net/"+device+"/ifindex"), Sh(t, "cat /sys/class/net/"+device+"/address")
		return fmt.Sprintf("lent by passthrough: link-%s-%s", index, mac)
	}
	forged := alias("pt1")
	passthrough(t, "n1", "pt0", "10.20.0.0/24")
	passthrough(t, "n2", "pt1", "10.30.0.0/24")
	Docker(t, "run", "-d", "--name", "bad1", "--cap-add", "NET_ADMIN", "--net", "n1", "lab", "sleep", "100000")
	Container(t, "c2", "--net", "n2")
	inside := "nsenter -t " + Inspect(t, "bad1", "{{.State.Pid}}") + " -n " // with the host's ip: the container's has no words for all
	for _, line := range []string{
		"ip link set eth0 down", "ip link set eth0 mtu 1200 txqueuelen 7 promisc on allmulticast on",
		"ip addr add 192.0.2.66/24 dev eth0", "ip link set eth0 alias '" + forged + "'", "ip link set eth0 up",
	} {
		Sh(t, inside+line)
	}
	Docker(t, "rm", "-f", "bad1")
	Reaches(t, "c2", "10.30.0.1", 5*time.Second)
	Docker(t, "rm", "-f", "c2")
	Within(t, 15*time.Second, func() string {
		if now, err := Try("sh", "-c", state); err != nil || now != before {
			return fmt.Sprintf("the devices are\n%s (%v)\nbut were\n%s", now, err, before)
		}
		return ""
	})
}
