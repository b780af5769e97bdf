package attach

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/engineapi"
	"github.com/mellanox/passthrough/test/harness/load"
	"github.com/mellanox/passthrough/test/suites/bench/figures"
)

// Flags, after -args.
var (
	flagBundle   = flag.String("bundle", "", "folder of the plugin's bundle, to be installed")
	flagPF       = flag.String("pf", "", "PFs without VFs, separated by commas, for figures of VFs; single VFs are of the first")
	flagRuns     = flag.Int("runs", 15, "docker run of each network")
	flagStorms   = flag.String("storms", "1,7,20,63,200", "how many containers start at once; none if empty")
	flagVFStorms = flag.String("vf-storms", "7", "how many containers start at once on VFs")
	flagRounds   = flag.Int("rounds", 3, "starts of each storm")
	flagProfile  = flag.String("profile", "", "file for the stacks of the calls of storms, if the plugin has the build tag profile")
	flagFigures  = flag.String("figures", "", "file for the raw figures")
	flagBaseline = flag.String("baseline", "", "figures of an earlier run; what is 20 % worse is said")
)

// TestAttach measures each row and prints the table.
func TestAttach(t *testing.T) {
	if err := dockertest.Install(*flagBundle); err != nil {
		t.Fatal(err)
	}
	f := &figures.Set{T: t}
	pf, _, _ := strings.Cut(*flagPF, ",")
	if pf != "" {
		networkCalls(t, f, pf)
	}
	nets := networks(t)
	took := runsInTurn(t, nets)
	f.Compare("P2 docker run --rm: mode=macvlan, macvlan", took["ours-macvlan"], took["macvlan"])
	f.Compare("P2 docker run --rm: mode=passthrough, bridge", took["ours-device"], took["bridged"])
	f.Compare("docker run --rm: no network, macvlan", took["none"], took["macvlan"])
	if *flagPF != "" {
		f.Compare("P2 docker run --rm: VF, macvlan", took["ours-vf"], took["macvlan"])
		f.Compare("P2 docker run --rm: VF, bridge", took["ours-vf"], took["bridged"])
	}
	attachCalls(t, f, pf)
	endProfile := startProfile(t)
	for _, n := range numbers(t, *flagStorms) {
		storm(t, f, n, "ours-macvlan", "")
	}
	if pf != "" {
		for _, n := range numbers(t, *flagVFStorms) {
			storm(t, f, n, "ours-vf", " on VFs")
		}
	}
	endProfile()
	fmt.Fprint(os.Stdout, "\n", f.Table())
	if *flagFigures != "" {
		if err := f.Save(*flagFigures); err != nil {
			t.Error(err)
		}
	}
	if *flagBaseline != "" {
		worse, err := f.Worse(*flagBaseline, 0.2)
		if err != nil {
			t.Error(err)
		}
		for _, line := range worse {
			fmt.Println("WORSE", line)
		}
	}
}

// startProfile starts the profile that a plugin with the build tag profile writes, see cmd/driver/profile.go. The function that it returns ends it, and
// copies the stacks.
func startProfile(t *testing.T) (end func()) {
	t.Helper()
	if *flagProfile == "" {
		return func() {}
	}
	id := strings.TrimSpace(dockertest.Sh(t, "docker plugin inspect --format '{{.Id}}' "+dockertest.Plugin))
	const toggle = "pkill -USR2 -x driver"
	dockertest.Sh(t, toggle)
	return func() {
		left := "/var/lib/docker/plugins/" + id + "/rootfs/calls.folded"
		dockertest.Sh(t, toggle)
		dockertest.Within(t, 10*time.Second, func() string {
			if _, err := os.Stat(left); err != nil {
				return err.Error()
			}
			return ""
		})
		dockertest.Sh(t, "cp "+left+" "+*flagProfile)
	}
}

// networks makes the networks, and returns their names.
func networks(t *testing.T) []string {
	t.Helper()
	for _, name := range []string{"pt0", "pt1", "pt2"} {
		dockertest.Sh(t, "ip link add "+name+" type veth peer name "+name+"p && ip link set "+name+" up && ip link set "+name+"p up")
		t.Cleanup(func() { _, _ = dockertest.Try("ip", "link", "del", name+"p") })
	}
	ours := func(name, subnet string, options ...string) {
		dockertest.Network(t, name, append([]string{"-d", dockertest.Plugin, "--ipam-driver", dockertest.Plugin, "--subnet", subnet}, options...)...)
	}
	ours("ours-macvlan", "10.40.0.0/16", "-o", "netdevice=pt0", "-o", "mode=macvlan")
	ours("ours-device", "10.41.0.0/16", "-o", "netdevice=pt2", "-o", "mode=passthrough")
	dockertest.Network(t, "macvlan", "-d", "macvlan", "--subnet", "10.42.0.0/16", "-o", "parent=pt1")
	dockertest.Network(t, "bridged", "-d", "bridge", "--subnet", "10.44.0.0/16") // an engine may have no bridge of its own
	nets := []string{"ours-macvlan", "macvlan", "ours-device", "bridged", "none"}
	if *flagPF != "" {
		makeAllVFs(t, *flagPF)
		ours("ours-vf", "10.43.0.0/16", "-o", "netdevice="+*flagPF)
		nets = append(nets, "ours-vf")
	}
	return nets
}

// makeAllVFs has the plugin make the VFs of several PFs, which may take longer than one call may: it keeps them for the next attempt.
func makeAllVFs(t *testing.T, pfs string) {
	t.Helper()
	dockertest.Within(t, 5*time.Minute, func() string {
		out, err := dockertest.Try("docker", "network", "create", "-d", dockertest.Plugin, "--ipam-driver", dockertest.Plugin, "--subnet", "10.47.0.0/16",
			"-o", "netdevice="+pfs, "all-vfs")
		if err != nil {
			return out
		}
		return ""
	})
	t.Cleanup(func() { _, _ = dockertest.Try("docker", "network", "rm", "all-vfs") })
}

// runsInTurn starts a container on each network in turn, and returns what each docker run took. The first of each is not counted.
func runsInTurn(t *testing.T, nets []string) map[string][]time.Duration {
	t.Helper()
	took := map[string][]time.Duration{}
	for i := range *flagRuns + 1 {
		for j := range nets {
			net := nets[(i+j)%len(nets)] // none always follows the same one
			began := time.Now()
			dockertest.Docker(t, "run", "--rm", "--net", net, "lab", "true")
			if i > 0 {
				took[net] = append(took[net], time.Since(began))
			}
		}
	}
	return took
}

// networkCalls measures what the plugin's calls take that create and delete the first network of a PF without VFs, by its log, in turn with the
// bare sequence that makes all VFs, tries one, and removes them.
func networkCalls(t *testing.T, f *figures.Set, pf string) {
	t.Helper()
	total, err := strconv.Atoi(strings.TrimSpace(dockertest.Sh(t, "cat /sys/class/net/"+pf+"/device/sriov_totalvfs && ip link set "+pf+" up")))
	if err != nil {
		t.Fatal(err)
	}
	ours, bare := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range *flagRuns {
		began := time.Now()
		if err := makeVFs(pf, total); err != nil {
			t.Fatal(err)
		}
		made := time.Now()
		if err := setNumVFs(pf, 0); err != nil {
			t.Fatal(err)
		}
		bare["CreateNetwork"] = append(bare["CreateNetwork"], made.Sub(began))
		bare["DeleteNetwork"] = append(bare["DeleteNetwork"], time.Since(made))
		before := len(calls(t))
		dockertest.Docker(t, "network", "create", "-d", dockertest.Plugin, "--ipam-driver", dockertest.Plugin, "--subnet", "10.46.0.0/16",
			"-o", "netdevice="+pf, "first")
		dockertest.Docker(t, "network", "rm", "first")
		for _, e := range calls(t)[before:] {
			op := strings.TrimPrefix(e.Op, "NetworkDriver.")
			ours[op] = append(ours[op], e.Took)
		}
	}
	f.Compare(fmt.Sprintf("P3 CreateNetwork: SR-IOV is off; %d VFs, and one tried", total), ours["CreateNetwork"], bare["CreateNetwork"])
	f.Compare("P3 DeleteNetwork: of the last network; 0 VFs", ours["DeleteNetwork"], bare["DeleteNetwork"])
}

// attachCalls measures what the plugin's calls for the start of one container took, by its log; for a VF, in turn with the bare sequence of
// calls that the kernel needs.
func attachCalls(t *testing.T, f *figures.Set, pf string) {
	t.Helper()
	for _, line := range []string{"disable -f " + dockertest.Plugin, "set " + dockertest.Plugin + " LOG_LEVEL=debug", "enable " + dockertest.Plugin} {
		dockertest.Sh(t, "docker plugin "+line) // at level info the log does not have them
	}
	nets := []string{"ours-macvlan", "ours-device"}
	var vf *bareVF
	if pf != "" {
		nets, vf = append(nets, "ours-vf"), newBareVF(t, pf)
	}
	for _, net := range nets {
		var bare []time.Duration
		byCall, sums := map[string][]time.Duration{}, []time.Duration{}
		for range *flagRuns {
			if net == "ours-vf" {
				began := time.Now()
				if err := vf.attach(); err != nil {
					t.Fatal(err)
				}
				bare = append(bare, time.Since(began))
			}
			before, released := len(calls(t)), len(logged(t, "released"))
			dockertest.Docker(t, "run", "--rm", "--net", net, "lab", "true")
			dockertest.Within(t, 10*time.Second, func() string {
				if len(logged(t, "released")) == released {
					return net + ": the device is not released yet"
				}
				return ""
			})
			var sum time.Duration
			for _, e := range calls(t)[before:] {
				op := strings.TrimPrefix(strings.TrimPrefix(e.Op, "NetworkDriver."), "IpamDriver.")
				byCall[op] = append(byCall[op], e.Took)
				switch op {
				case "RequestAddress", "CreateEndpoint", "Join":
					sum += e.Took
				}
			}
			sums = append(sums, sum)
		}
		if net == "ours-vf" {
			f.Compare("P1 all calls of a start: VF, bare sequence", sums, bare)
		}
		f.Column = "ours"
		f.Times("P1 all calls of a start: "+net, sums, 0)
		for _, op := range []string{"RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress"} {
			if took := byCall[op]; len(took) > 0 {
				f.Times("... "+op+": "+net, took, 0)
			}
		}
	}
}

// calls returns the calls in the plugin's log.
func calls(t *testing.T) []dockertest.Event { return logged(t, "call") }

// logged returns the lines of the plugin's log with a message.
func logged(t *testing.T, msg string) (all []dockertest.Event) {
	t.Helper()
	log, err := dockertest.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		if e.Msg == msg {
			all = append(all, e)
		}
	}
	return all
}

// numbers returns the numbers of a list with commas.
func numbers(t *testing.T, list string) (all []int) {
	t.Helper()
	for text := range strings.SplitSeq(list, ",") {
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// storm starts n containers at once, stops them at once, on a network of the plugin and on the engine's macvlan in turn. on says in the table what
// the network has, if that is not macvlan.
func storm(t *testing.T, f *figures.Set, n int, ours, on string) {
	t.Helper()
	e := engineapi.Engine()
	defer e.CloseIdleConnections()
	nets := []string{ours, "macvlan"}
	names := map[string][]string{}
	for _, net := range nets {
		for i := range n {
			name := fmt.Sprintf("%s-%d", net, i)
			if err := e.Create(name, net); err != nil {
				t.Fatal(err)
			}
			names[net] = append(names[net], name)
		}
	}
	started, stopped, whole := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}
	for i := range *flagRounds {
		for j := range nets {
			net := nets[(i+j)%len(nets)]
			began := time.Now()
			started[net] = append(started[net], together(t, names[net], e.Start)...)
			whole[net] = append(whole[net], time.Since(began))
			stopped[net] = append(stopped[net], together(t, names[net], e.Stop)...)
		}
	}
	for _, net := range nets {
		together(t, names[net], e.Remove)
	}
	f.Compare(fmt.Sprintf("P10 %d starts at once%s: each", n, on), started[nets[0]], started[nets[1]])
	f.Compare(fmt.Sprintf("P10 %d starts at once%s: all", n, on), whole[nets[0]], whole[nets[1]])
	f.Compare(fmt.Sprintf("P10 %d stops at once%s: each", n, on), stopped[nets[0]], stopped[nets[1]])
}

// together calls do for all names at once, and returns what each took.
func together(t *testing.T, names []string, do func(string) error) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex // guards took
	failed := load.Together(names, func(name string) error {
		began := time.Now()
		err := do(name)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(began))
		return err
	})
	for name, err := range failed {
		t.Errorf("%s: %v", name, err)
	}
	return took
}
