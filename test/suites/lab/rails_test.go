//go:build lab

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// functionOf is the PCI address of a device of a container.
func functionOf(t *testing.T, container, device string) string {
	t.Helper()
	_, pci, _ := strings.Cut(Exec(t, container, "cat", "/sys/class/net/"+device+"/device/uevent"), "PCI_SLOT_NAME=")
	return strings.Fields(pci)[0]
}

// TestNear: containers get VFs of the PF that is the nearest to a device, and the option of a container comes before that of its network. What is
// near to the second PF is that PF itself: the guest has no GPU.
func TestNear(t *testing.T) {
	asBefore(t)
	Network(t, "n", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.1.0.0/24", "-o", "netdevice="+pf+","+another, "-o", "numvfs=2",
		"-o", "near=02:00.0")
	for _, c := range []struct{ name, network, bus string }{{"c1", "n", "0000:02:"}, {"c2", "n", "0000:02:"}, {"c3", "n", "0000:01:"},
		{"c4", "name=n,driver-opt=near=" + pfPCI, "0000:01:"}} {
		Container(t, c.name, "--network", c.network)
		if got := functionOf(t, c.name, "eth0"); !strings.HasPrefix(got, c.bus) {
			t.Errorf("%s has %s, want one on bus %s", c.name, got, c.bus)
		}
	}
	WantLine(t, Sh(t, "./passthroughctl explain c1"), "near", "0000:02:00.0: behind the same root port")
	Refused(t, "option near: this machine has no gpu; give the pci address of a device", "network", "create", "-d", Plugin, "-o", "netdevice="+pf, "-o", "near=gpu", "x")
}

// TestComposeRails types the commands of docs/hpc.md for a service on rails, of two containers, on VFs of two PFs in place of those near GPUs. Huge
// pages are those of the host.
func TestComposeRails(t *testing.T) {
	asBefore(t)
	tool, err := filepath.Abs("passthroughctl")
	if err != nil {
		t.Fatal(err)
	}
	names, chosen := []string{"rail0", "rail1"}, "--netdevice "+pf+","+another+" -o numvfs=2"
	if apiMinor(t) < 56 { // engine 29.8
		names, chosen = []string{"rail0_0", "rail1_0"}, chosen+" --numbered"
	}
	const pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	had := strings.TrimSpace(Sh(t, "cat "+pages))
	Sh(t, "echo 4 >"+pages+"; mkdir -p /dev/hugepages; mountpoint -q /dev/hugepages || mount -t hugetlbfs none /dev/hugepages")
	t.Cleanup(func() { Sh(t, "echo "+had+" >"+pages) })

	folder := filepath.Join(t.TempDir(), "rails")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	commands := docs.Commands(t, "hpc.md", "A service on rails")
	down := commands[len(commands)-1]
	t.Cleanup(func() {
		if _, err := TryIn(folder, down); err != nil {
			t.Errorf("%s: %v", down, err)
		}
	})
	for i, command := range commands[:len(commands)-1] {
		if i == 1 {
			Sh(t, "sed -i 's/# volumes/volumes/' "+folder+"/compose.yaml")
		}
		out := InFolder(t, folder, strings.NewReplacer("passthroughctl ", tool+" ", "--near gpu", chosen).Replace(command))
		switch {
		case strings.Contains(command, " ip "):
			WantLine(t, out, names[0], "10.10.0.")
			WantLine(t, out, names[1], "10.10.1.")
		case strings.Contains(command, " grep "):
			WantLine(t, out, "locked memory", "unlimited")
		}
	}
	for i, network := range []string{"rails_rail0", "rails_rail1"} {
		if got, bus := functionOf(t, "rails-job-1", names[i]), []string{"0000:01:", "0000:02:"}[i]; !strings.HasPrefix(got, bus) {
			t.Errorf("%s is %s, want one on bus %s", names[i], got, bus)
		}
		Reaches(t, "rails-job-1", Address(t, "rails-job-2", network), 10*time.Second)
	}
	WantLine(t, Exec(t, "rails-job-1", "grep", "hugepages", "/proc/mounts"), "/dev/hugepages", "hugetlbfs")
}

// TestComposeRDMARails: a service on two rails has the files of the RDMA devices of its two VFs, which are of rdma_rxe and on different PFs. The
// devices are made on the VFs in the host, and again in the container, which is why docs/hpc.md has this as no example.
func TestComposeRDMARails(t *testing.T) {
	if kernel := Sh(t, "uname -r"); !strings.HasPrefix(kernel, "7.") {
		t.Skip("Linux " + kernel + " has rdma_rxe in the host's network namespace only")
	}
	asBefore(t)
	t.Cleanup(func() {
		_, _ = Try("sh", "-c", "cd /root/rails && docker compose down -t1; rm -r /root/rails")
		Sh(t, "docker plugin disable -f "+Plugin+" && docker plugin set "+Plugin+" cdi.source=/proc/irq && docker plugin enable "+Plugin+" && rm -rf /etc/cdi")
	})
	for _, command := range docs.Commands(t, "cdi.md", "The folder") {
		Sh(t, command)
	}
	Sh(t, "modprobe -a rdma_rxe ib_uverbs rdma_ucm; mkdir /root/rails; ./passthroughctl rails --netdevice "+pf+","+another+" -o numvfs=2 --cdi --vf 0 "+
		"--subnet 10.10.0.0/16 --compose >/root/rails/compose.yaml; cd /root/rails && docker compose up --no-start")
	for i, nic := range []string{pf, another} {
		Sh(t, fmt.Sprintf("rdma link add rxe%d type rxe netdev %sv0", i, nic))
	}
	Within(t, 90*time.Second, func() string {
		specs := Sh(t, "cat /etc/cdi/*.json")
		if !strings.Contains(specs, "/dev/infiniband/uverbs0") || !strings.Contains(specs, "/dev/infiniband/uverbs1") {
			return specs
		}
		return ""
	})
	Sh(t, "cd /root/rails && docker compose start")
	const job = "rails-job-1"
	for i := range 2 {
		Sh(t, fmt.Sprintf("nsenter -n -t $(docker inspect -f '{{.State.Pid}}' %s) rdma link add rxe%d type rxe netdev rail%d", job, i, i))
	}
	if files := Exec(t, job, "ls", "/dev/infiniband"); files != "rdma_cm\nuverbs0\nuverbs1" {
		t.Errorf("the service has the files %q", files)
	}
	devices := Sh(t, "nsenter -n -t $(docker inspect -f '{{.State.Pid}}' "+job+") rdma link")
	WantLine(t, devices, "rxe0", "netdev rail0")
	WantLine(t, devices, "rxe1", "netdev rail1")
	for i, bus := range []string{"0000:01:", "0000:02:"} {
		if got := functionOf(t, job, fmt.Sprintf("rail%d", i)); !strings.HasPrefix(got, bus) {
			t.Errorf("rail%d is %s, want one on bus %s", i, got, bus)
		}
	}
}
