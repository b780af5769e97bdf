package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fuzz runs every fuzz target that there is for as long as -fuzztime says: what was found before, which is in testdata/fuzz
// and runs in the layer unit as well, and what is new. A target is one test.
func fuzz(ctx context.Context, s *stage) error {
	packages, err := s.fuzzed(ctx)
	if err != nil {
		return err
	}
	if len(packages) == 0 {
		return errors.New("no package has a fuzz target")
	}
	var failures []error
	for _, p := range packages {
		failures = append(failures, s.fuzzPackage(ctx, p))
	}
	return errors.Join(failures...)
}

// A fuzzedPackage is a package that has files with fuzz targets.
type fuzzedPackage struct{ path, dir string }

// fuzzed finds them by their source; which targets there are their own test binary says.
func (s *stage) fuzzed(ctx context.Context) ([]fuzzedPackage, error) {
	lines, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []fuzzedPackage
	for _, line := range lines {
		f := strings.Fields(line)
		p := taggedPackage{path: f[0], dir: f[1]}
		for _, name := range f[2:] {
			names, err := testsIn(filepath.Join(p.dir, name), "Fuzz")
			if err != nil {
				return nil, err
			}
			p.tests = append(p.tests, names...)
		}
		if len(p.tests) > 0 {
			found = append(found, fuzzedPackage{p.path, p.dir})
		}
	}
	return found, nil
}

// fuzzPackage builds the targets of a package, with the instruments that tell new inputs from old ones, and runs one after
// the other: each uses all processors, or one if another layer runs. Little time is spent on making inputs of interest shorter: by default it is a minute for
// each, in which no other is tried.
func (s *stage) fuzzPackage(ctx context.Context, p fuzzedPackage) error {
	name := strings.ReplaceAll(p.path, "/", "-")
	binary := filepath.Join(s.root, ".cache/test", name+".fuzz.test")
	build := s.modest("go", "test", "-c", "-fuzz=^Fuzz", "-o", binary, p.path)
	if err := s.step(ctx, build[0], build[1:]...); err != nil {
		return err
	}
	list := s.command(ctx, binary, "-test.list=^Fuzz")
	list.Dir = p.dir
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("%s: list its fuzz targets: %w", p.path, err)
	}
	var failures []error
	for _, target := range strings.Fields(string(out)) {
		failures = append(failures, s.fuzzTarget(ctx, p, binary, target))
	}
	return errors.Join(failures...)
}

// fuzzTarget runs a target for as long as -fuzztime says. After a time it is interrupted, as a user would: one that is told to end
// by itself (-test.fuzztime=30s) fails at times where it has to wait for a processor, with "context deadline exceeded" and no
// input: it finds its time over before those that work for it do (Go 1.26, internal/fuzz, stop; 3 of 120 runs).
func (s *stage) fuzzTarget(ctx context.Context, p fuzzedPackage, binary, target string) error {
	args := append(s.testFlags(time.Hour), "-test.run=^$", "-test.fuzz=^"+target+"$", "-test.fuzzminimizetime=10x",
		"-test.fuzzcachedir="+filepath.Join(s.root, ".cache/fuzz", strings.ReplaceAll(p.path, "/", "-")))
	if s.spare {
		args = append(args, "-test.parallel=1")
	}
	during := ctx
	if d, err := time.ParseDuration(s.fuzzTime); err != nil {
		args = append(args, "-test.fuzztime="+s.fuzzTime) // a number of inputs, or nothing that the binary knows
	} else {
		var cancel context.CancelFunc
		during, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	line := s.modest(append([]string{binary}, args...)...)
	cmd := s.command(during, line[0], line[1:]...)
	cmd.Dir = p.dir
	stop := cmd.Cancel
	cmd.Cancel = func() error {
		if ctx.Err() != nil {
			return stop()
		}
		return errors.Join(cmd.Process.Signal(os.Interrupt), os.ErrProcessDone) // that it ends now is as it should be
	}
	shown := p.path + "." + target // a line for each, as for a package
	err := s.convert(ctx, shown, cmd)
	s.tally.showInput(shown, target, p.dir)
	return errors.Join(err, s.tally.tried(shown, target))
}

// modest is a command line that leaves the processors to others, if the stage has to. Where the kernel groups processes by their
// session (CONFIG_SCHED_AUTOGROUP; sched(7)), being nice counts only within one, and a guest of the lab is a session of its own: the
// command gets one as well, whose group is nice as a whole.
func (s *stage) modest(line ...string) []string {
	if !s.spare {
		return line
	}
	const nice = `{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"` // no such file, or no groups: nice is enough
	return append([]string{"setsid", "sh", "-c", nice, "sh"}, line...)
}

// failing is what a target says of an input that makes it fail, with the file that it has written it to.
var failing = regexp.MustCompile(`Failing input written to (\S+)`)

// showInput shows the input that has made a target fail: the file is gone where the whole checkout goes after the tests.
func (t *tally) showInput(pkg, target, dir string) {
	x := t.tests[pkg+" "+target]
	if x == nil {
		return
	}
	for _, m := range failing.FindAllStringSubmatch(strings.Join(x.output, ""), -1) {
		input, err := os.ReadFile(filepath.Join(dir, m[1]))
		if err != nil {
			input = []byte(err.Error())
		}
		x.output = append(x.output, string(input))
		t.report.say("    %s:\n%s", m[1], input)
	}
}

// execs is what a target says of inputs that it has tried: new ones, or at first those that it knows.
var execs = regexp.MustCompile(`(execs|baseline coverage): [1-9]`)

// tried is an error if a target that passed has tried no input at all.
func (t *tally) tried(pkg, target string) error {
	x := t.tests[pkg+" "+target]
	if x == nil {
		return fmt.Errorf("%s: did not run", pkg)
	}
	if x.outcome == passed && !execs.MatchString(strings.Join(x.output, "")) {
		return fmt.Errorf("%s: has tried no input", pkg)
	}
	return nil
}
