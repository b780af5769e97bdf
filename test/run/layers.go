package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A layer is a set of tests that need the same surroundings.
type layer struct {
	name, what string
	beside     string        // the layer at whose side it runs, if both are to run: that leaves processors idle
	long       bool          // its tests take seconds each: show them one by one
	asked      bool          // it runs only if it is asked for, and for so long that what its tests say is shown at once
	bound      time.Duration // set-up included
	run        func(context.Context, *stage) error
}

// layers is the table of all layers, in the order in which they run: what fails fast comes first.
var layers = []layer{
	{name: "unit", what: "no privileges, race detector", bound: 15 * time.Minute, run: unit},
	{name: "fuzz", what: "made-up requests, options, records and files of sysfs", beside: "lab", bound: 75 * time.Minute, run: fuzz},
	{name: "kernel", what: "real netlink in private namespaces", bound: 10 * time.Minute, run: kernel},
	{name: "cluster", what: "the cluster store on real etcd servers", long: true, bound: 20 * time.Minute, run: cluster},
	{name: "engine", what: "a private Docker Engine with the real plugin", long: true, bound: 30 * time.Minute, run: engine},
	{name: "lab", what: "SR-IOV on an emulated NIC, with a Docker Engine", long: true, bound: 75 * time.Minute, run: lab},
	{name: "crash", what: "the plugin killed at every point", long: true, asked: true, bound: 12 * time.Hour, run: crash},
	{name: "campaign", what: "operations drawn by lot, on an emulated NIC", long: true, asked: true, bound: 13 * time.Hour, run: campaign},
	{name: "load", what: "hundreds of containers at once, on an engine and on an emulated NIC", long: true, asked: true, bound: 13 * time.Hour, run: load},
}

// crash runs the tests that kill the plugin at its crash points, those of the layers kernel, cluster and lab, with as many deaths
// as CRASH_EVERY says: in their layers they draw lots.
func crash(ctx context.Context, s *stage) error {
	s.among(`^TestCrash`)
	s.bound = 10 * time.Hour
	return errors.Join(kernel(ctx, s), cluster(ctx, s), lab(ctx, s))
}

// campaign boots a machine in several ways, and then runs a random campaign that is as long as CAMPAIGN_OPS says.
func campaign(ctx context.Context, s *stage) error {
	s.among(`^(TestCampaign|TestBoot)$`)
	s.bound = 12 * time.Hour
	return lab(ctx, s)
}

// load starts and stops containers at once, LOAD_ROUNDS times: as many as LOAD_CHILDREN says on the private engine, where nothing
// is emulated, and in the guest those that there are VFs for.
func load(ctx context.Context, s *stage) error {
	s.among(`^TestLoad$`)
	s.bound = 6 * time.Hour
	return errors.Join(engine(ctx, s), lab(ctx, s))
}

// unit runs every test that has no build tag.
func unit(ctx context.Context, s *stage) error {
	if err := s.needCompiler(ctx); err != nil {
		return err
	}
	return s.count(ctx, s.command(ctx, "go", "test", "-race", "-json", "./..."))
}

// kernel runs the tests behind the tag kernel, each package in a network and a mount namespace of its own, so that not
// even a wrong test can touch the host's links. Without root a user namespace stands in for it.
func kernel(ctx context.Context, s *stage) error {
	packages, err := s.tagged(ctx, "kernel")
	if err != nil {
		return err
	}
	if len(packages) == 0 {
		return errors.New("no package has a test with the build tag kernel")
	}
	private := []string{"--net", "--mount"}
	if os.Geteuid() != 0 {
		private = append(private, "--user", "--map-root-user")
	}
	var failures []error
	for _, p := range packages {
		binary, err := s.compile(ctx, "kernel", p.path)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		args := append(append([]string{}, private...), "--", binary, "-test.run="+s.pattern(p))
		cmd := s.command(ctx, "unshare", append(args, s.testFlags(5*time.Minute)...)...)
		cmd.Dir = p.dir
		failures = append(failures, s.convert(ctx, p.path, cmd))
	}
	return errors.Join(failures...)
}

// cluster runs the tests behind the tag cluster, which build and start the etcd servers that they need.
func cluster(ctx context.Context, s *stage) error {
	packages, err := s.tagged(ctx, "cluster")
	if err != nil {
		return err
	}
	var failures []error
	for _, p := range packages {
		binary, err := s.compile(ctx, "cluster", p.path)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		cmd := s.command(ctx, binary, append([]string{"-test.run=" + s.pattern(p)}, s.testFlags(15*time.Minute)...)...)
		cmd.Dir = p.dir
		failures = append(failures, s.convert(ctx, p.path, cmd))
	}
	return errors.Join(failures...)
}

// engine runs test/suites/engine beside a Docker Engine that scripts/engine starts for it and ends after it.
func engine(ctx context.Context, s *stage) error {
	binary, err := s.compile(ctx, "engine", "./test/suites/engine")
	if err != nil {
		return err
	}
	if err := s.step(ctx, "make", "plugin"); err != nil {
		return err
	}
	args := append(append([]string{"run"}, s.engine()...), "--", binary)
	if s.only != nil {
		args = append(args, "-test.run="+s.only.String()+s.parts)
	}
	args = append(args, s.testFlags(25*time.Minute)...)
	cmd := s.command(ctx, filepath.Join(s.root, "scripts/engine"), args...)
	cmd.Dir = filepath.Join(s.root, "test/suites/engine")
	return s.convert(ctx, "test/suites/engine", cmd)
}

// A surrounding is one or more virtual machines of the layer lab, and the tests that need them.
type surrounding struct {
	machines []machine
	packages []string // in this order: test/suites/lab installs the plugin, others want the NICs as they are
	asked    bool     // its tests are long ones alone
	outside  bool     // the tests reach the machines from here, by scripts/lab; others run in the machine
}

// A machine is a guest of scripts/lab: its name, "" for the one without, and how it is started.
type machine struct {
	name string
	up   []string
}

// surroundings are those of the layer lab; they run one after the other.
var surroundings = []surrounding{
	{[]machine{{"", []string{"--pf", "2"}}}, []string{"./hw/rtnl", "./cmd/driver", "./test/suites/lab"}, false, false},
	{[]machine{{"", []string{"--nic", "virtio"}}}, []string{"./test/suites/virtio"}, false, false},
	{[]machine{{"", []string{"--pf", "3", "--disk", "2048"}}}, []string{"./test/suites/campaign"}, true, true},
	{[]machine{
		{"node1", []string{"--wire", "swarm/1"}},
		{"node2", []string{"--wire", "swarm/2", "--disk", "2048"}},
	}, []string{"./test/suites/swarm"}, false, true},
}

// lab are the arguments of scripts/lab that are about the machine.
func (m machine) lab(args ...string) []string {
	if m.name == "" {
		return args
	}
	return append([]string{"--guest", m.name}, args...)
}

// lab runs the tests behind the tag lab in guests.
func lab(ctx context.Context, s *stage) error {
	script := filepath.Join(s.root, "scripts/lab")
	if _, err := os.Stat(script); err != nil {
		return err
	}
	tagged, err := s.tagged(ctx, "lab")
	if err != nil {
		return err
	}
	if err := s.step(ctx, "make", "plugin"); err != nil {
		return err
	}
	var failures []error
	for _, around := range surroundings {
		var packages []taggedPackage
		for _, name := range around.packages {
			i := slices.IndexFunc(tagged, func(p taggedPackage) bool { return strings.HasSuffix(p.path, name[1:]) })
			if i < 0 && (s.only != nil || around.asked) {
				continue
			}
			if i < 0 {
				return fmt.Errorf("%s has no tests with tag lab", name)
			}
			packages = append(packages, tagged[i])
			tagged = slices.Delete(tagged, i, i+1)
		}
		if len(packages) > 0 {
			failures = append(failures, s.surrounded(ctx, script, around, packages))
		}
	}
	for _, p := range tagged {
		failures = append(failures, fmt.Errorf("%s: no guest runs its tests with tag lab", p.path))
	}
	return errors.Join(failures...)
}

// surrounded runs the tests of some packages with their machines, which go whatever happens, an interrupt included.
func (s *stage) surrounded(ctx context.Context, script string, around surrounding, packages []taggedPackage) (err error) {
	var binaries []string
	for _, p := range packages {
		binary, err := s.compile(ctx, "lab", p.path)
		if err != nil {
			return err
		}
		binaries = append(binaries, binary)
	}
	for _, m := range around.machines {
		if exec.CommandContext(ctx, script, m.lab("status")...).Run() == nil {
			return fmt.Errorf("a guest is running already, and the tests want one of their own; end it with: scripts/lab %s",
				strings.Join(m.lab("down"), " "))
		}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		for _, m := range around.machines {
			err = errors.Join(err, s.step(ctx, script, m.lab("down")...))
		}
	}()
	for _, m := range around.machines {
		if err := s.step(ctx, script, m.lab(slices.Concat([]string{"up"}, m.up, s.engine())...)...); err != nil {
			return err
		}
	}
	if around.outside {
		return s.beside(ctx, packages, binaries)
	}
	return s.inside(ctx, script, packages, binaries)
}

// inside runs the tests in the machine, in a folder where the bundle of the plugin lies as plugin/.
func (s *stage) inside(ctx context.Context, script string, packages []taggedPackage, binaries []string) error {
	const place = "/root/test/"
	files := slices.Concat(binaries, s.paths("bin/plugin", "README.md", "scripts/demo", "scripts/host-rules"))
	for _, args := range [][]string{
		{"sh", "mkdir -p " + place},
		slices.Concat([]string{"put"}, files, []string{place}),
	} {
		if err := s.step(ctx, script, args...); err != nil {
			return err
		}
	}
	var failures []error
	for i, p := range packages {
		run := fmt.Sprintf("cd %s && %s exec ./%s -test.run='%s' %s", place, passedOn(), filepath.Base(binaries[i]), s.pattern(p),
			strings.Join(s.testFlags(50*time.Minute), " "))
		failures = append(failures, s.convert(ctx, p.path, s.command(ctx, script, "sh", run)))
	}
	return errors.Join(failures...)
}

// passedOn are the variables of the environment that are meant for tests in the machine.
func passedOn() string {
	var vars []string
	for _, name := range []string{"CRASH_EVERY", "CRASH_SEED", "CRASH_PART", "CRASH_ALL", "LOAD_ROUNDS"} {
		if v := os.Getenv(name); v != "" {
			vars = append(vars, fmt.Sprintf("%s='%s'", name, v))
		}
	}
	return strings.Join(vars, " ")
}

// beside runs the tests on this machine, in the folder of their package.
func (s *stage) beside(ctx context.Context, packages []taggedPackage, binaries []string) error {
	var failures []error
	for i, p := range packages {
		cmd := s.command(ctx, binaries[i], append([]string{"-test.run=" + s.pattern(p)}, s.testFlags(25*time.Minute)...)...)
		cmd.Dir = p.dir
		failures = append(failures, s.convert(ctx, p.path, cmd))
	}
	return errors.Join(failures...)
}

// testFlags are the flags of a test binary whose output is to be counted.
func (s *stage) testFlags(timeout time.Duration) []string {
	if s.bound > 0 {
		timeout = s.bound
	}
	return []string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + timeout.String()}
}
