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
	"github.com/mellanox/passthrough/test/harness/docs"
)

// rails has a device for each of four rails, and returns the commands of docs/hpc.md below a heading with these in the place of those near GPUs,
// of which this machine has none. The commands are to be typed in a folder, whose project is called as the folder.
func rails(t *testing.T, heading string) (folder string, commands []string) {
	t.Helper()
	var devices []string
	for i := range 4 {
		name := fmt.Sprintf("fab%d", i)
		veth(t, name, fmt.Sprintf("10.10.%d.1/24", i))
		Sh(t, "ip link set "+name+" mtu 9000 up")
		devices = append(devices, name)
	}
	tool := tool(t)
	chosen := "--netdevice " + strings.Join(devices, ",") + " --mode macvlan --host 2/2"
	if !takesIfname(t) {
		chosen += " --numbered"
	}
	folder = filepath.Join(t.TempDir(), "rails")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, command := range docs.Commands(t, "../../../docs/hpc.md", heading) {
		commands = append(commands, strings.NewReplacer("passthroughctl ", tool+" ", "--near gpu", chosen).Replace(command))
	}
	return folder, commands
}

// tool returns the path of passthroughctl, for commands that are typed in another folder.
func tool(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../bin/passthroughctl")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// railName returns the name of a container's device on a rail.
func railName(t *testing.T, i int) string {
	t.Helper()
	if takesIfname(t) {
		return fmt.Sprintf("rail%d", i)
	}
	return fmt.Sprintf("rail%d_0", i)
}

// wantRails checks that a container has a device on each rail, with its name, an address of this host's part of its subnet, and sysctls, and
// that it reaches another container on each.
func wantRails(t *testing.T, container, other, prefix string) {
	t.Helper()
	for i := range 4 {
		name, network := railName(t, i), fmt.Sprintf("%srail%d", prefix, i)
		address := Address(t, container, network)
		var last int
		if _, err := fmt.Sscanf(address, fmt.Sprintf("10.10.%d.%%d", i), &last); err != nil || last < 128 {
			t.Errorf("%s has %s on %s: %v", container, address, network, err)
		}
		if has := Exec(t, container, "ip", "-o", "-4", "address", "show", name); !strings.Contains(has, address+"/24") {
			t.Errorf("%s of %s has %s, want %s", name, container, has, address)
		}
		for sysctl, want := range map[string]string{"arp_ignore": "1", "arp_announce": "2", "rp_filter": "2"} {
			if apiMinor(t) < 46 { // the engine does not know the option
				break
			}
			if got := Exec(t, container, "cat", "/proc/sys/net/ipv4/conf/"+name+"/"+sysctl); got != want {
				t.Errorf("%s of %s is %s, want %s", sysctl, name, got, want)
			}
		}
		Reaches(t, container, Address(t, other, network), 5*time.Second)
		Reaches(t, container, fmt.Sprintf("10.10.%d.1", i), 5*time.Second)
	}
}

// lockable returns how much memory containers can be allowed to lock on this machine, as docker's option has it and as the kernel shows it. What the
// commands ask for, any amount, only a test with CAP_SYS_RESOURCE can have; the lab has it.
func lockable(t *testing.T) (option, shown string) {
	t.Helper()
	if _, err := Try("prlimit", "--memlock=unlimited", "true"); err == nil {
		return "-1", "unlimited"
	}
	most := Sh(t, "prlimit --memlock --raw --noheadings --output HARD")
	return most, most
}

// TestRails types the commands of docs/hpc.md: the networks of four rails are made, and two containers have a device on each.
func TestRails(t *testing.T) {
	if apiMinor(t) < 44 {
		t.Skip("engines before 25 create no container on several networks; TestComposeRails has them connected one after the other")
	}
	folder, commands := rails(t, "Rails")
	t.Cleanup(func() { _, _ = Try("docker", "network", "rm", "rail0", "rail1", "rail2", "rail3") })
	for _, command := range commands {
		out := InFolder(t, folder, command)
		if strings.HasSuffix(command, "/16") {
			WantLine(t, out, "rail3", "fab3", "10.10.3.128/25")
		}
	}
	script, err := os.ReadFile(filepath.Join(folder, "rails.sh"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(script)), "\n")
	run := strings.TrimPrefix(lines[len(lines)-1], "# ")
	locks, shown := lockable(t)
	for _, name := range []string{"c1", "c2"} {
		Sh(t, strings.NewReplacer("memlock=-1", "memlock="+locks, "docker run", "docker run -d --name "+name, "IMAGE", "lab sleep 1000000").Replace(run))
		t.Cleanup(func() { _, _ = Try("docker", "rm", "-f", name) })
	}
	wantRails(t, "c1", "c2", "")
	if mtu := Exec(t, "c1", "cat", "/sys/class/net/"+railName(t, 3)+"/mtu"); mtu != "9000" {
		t.Errorf("the mtu is %s", mtu)
	}
	WantLine(t, Exec(t, "c1", "grep", "locked memory", "/proc/1/limits"), "locked memory", shown)
	Docker(t, "rm", "-f", "c1", "c2")
	Docker(t, "network", "rm", "rail0", "rail1", "rail2", "rail3")
}

// TestComposeRails types the commands of docs/hpc.md for a service on rails, of two containers.
func TestComposeRails(t *testing.T) {
	folder, commands := rails(t, "A service on rails")
	down := commands[len(commands)-1]
	t.Cleanup(func() {
		if _, err := TryIn(folder, down); err != nil {
			t.Errorf("%s: %v", down, err)
		}
	})
	locks, shown := lockable(t)
	for i, command := range commands[:len(commands)-1] {
		if i == 1 {
			Sh(t, "sed -i 's/memlock: -1/memlock: "+locks+"/' "+folder+"/compose.yaml")
		}
		switch out := InFolder(t, folder, command); {
		case strings.Contains(command, " ip "):
			for i := range 4 {
				WantLine(t, out, railName(t, i), fmt.Sprintf("10.10.%d.", i))
			}
		case strings.Contains(command, " grep "):
			WantLine(t, out, "locked memory", shown)
		}
	}
	wantRails(t, "rails-job-1", "rails-job-2", "rails_")
}

// railWithCDI brings up a service on one rail, which names the CDI device of that: the engine has its spec when Compose has made the network.
func railWithCDI(t *testing.T, device string) {
	t.Helper()
	folder := t.TempDir()
	locks, _ := lockable(t)
	InFolder(t, folder, tool(t)+" rails --mode macvlan --netdevice "+device+" --subnet 10.10.0.0/16 --cdi --compose | "+
		"sed 's/memlock: -1/memlock: "+locks+"/' >compose.yaml")
	defer InFolder(t, folder, "docker compose -p rails down")
	InFolder(t, folder, "docker compose -p rails up -d")
	if env, want := Exec(t, "rails-job-1", "cat", "/proc/1/environ"), "NETDEVICE_MELLANOX_COM_RAIL0="+device; !strings.Contains(env, want) {
		t.Errorf("the service has no %s:\n%s", want, env)
	}
}
