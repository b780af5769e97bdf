package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

// An event is one line of go test -json, as far as it is of interest here.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build's events
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// An outcome is how a test ended; running is how one ended that took its process with it.
type outcome string

const (
	running outcome = ""
	passed  outcome = "pass"
	failed  outcome = "fail"
	skipped outcome = "skip"
)

// A test is one test or subtest.
type test struct {
	pkg, name string
	outcome   outcome
	seconds   float64
	parent    bool // has subtests, which are counted in its place
	output    []string
}

// A tally counts the tests of a layer while they run.
type tally struct {
	report  *report
	tests   map[string]*test    // by package and name
	order   []*test             // as they began
	outside map[string][]string // by package: output that belongs to no test
	ended   map[string]bool     // by package
	started time.Time
	took    time.Duration
	broken  []string // why the layer, or a package in it, could not run to its end
}

// newTally is a tally with nothing in it.
func newTally(r *report) *tally {
	return &tally{
		report: r, tests: map[string]*test{}, outside: map[string][]string{}, ended: map[string]bool{}, started: time.Now(),
	}
}

// line takes one line of output: an event, or something that a tool said in between.
func (t *tally) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		t.report.note(line)
		return
	}
	switch {
	case e.Action == "build-output":
		t.report.note(strings.TrimSuffix(e.Output, "\n"))
	case e.Test != "":
		t.test(e)
	case e.Action == "output":
		t.outside[e.Package] = append(t.outside[e.Package], e.Output)
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		t.pack(e)
	}
}

// test takes an event of a test.
func (t *tally) test(e event) {
	key := e.Package + " " + e.Test
	x := t.tests[key]
	if x == nil {
		x = &test{pkg: e.Package, name: e.Test}
		t.tests[key], t.order = x, append(t.order, x)
		if up, ok := t.tests[e.Package+" "+parentOf(e.Test)]; ok {
			up.parent = true
		}
	}
	switch o := outcome(e.Action); o {
	case "output":
		x.output = append(x.output, e.Output)
		if t.report.live {
			t.report.output(e.Output)
		}
	case passed, failed, skipped:
		x.outcome, x.seconds = o, e.Elapsed
		if !strings.Contains(x.name, "/") {
			t.report.test(x, t.family(x))
		}
	}
}

// parentOf is the name of the test that a subtest belongs to, "" for none.
func parentOf(name string) string {
	i := strings.LastIndex(name, "/")
	if i < 0 {
		return ""
	}
	return name[:i]
}

// family is a test and its subtests, in the order in which they began.
func (t *tally) family(x *test) []*test {
	var all []*test
	for _, y := range t.order {
		if y == x || (y.pkg == x.pkg && strings.HasPrefix(y.name, x.name+"/")) {
			all = append(all, y)
		}
	}
	return all
}

// end sees to it that a package has ended: a test binary that dies prints no last event.
func (t *tally) end(pkg string, ok bool, took time.Duration) {
	if t.ended[pkg] {
		return
	}
	e := event{Action: string(passed), Package: pkg, Elapsed: took.Seconds()}
	if !ok {
		e.Action = string(failed)
	}
	t.pack(e)
}

// pack takes the end of a package.
func (t *tally) pack(e event) {
	t.ended[e.Package] = true
	var all []*test
	anyFailed := false
	for _, x := range t.order {
		if x.pkg != e.Package {
			continue
		}
		if x.outcome == running {
			x.outcome = failed
			t.report.test(x, []*test{x})
		}
		anyFailed = anyFailed || x.outcome == failed
		all = append(all, x)
	}
	if e.Action == "fail" && !anyFailed {
		t.broken = append(t.broken, e.Package+": failed outside of its tests")
	}
	t.report.pack(e, count(all), t.outside[e.Package])
}

// counts are the numbers of a package, a layer, or all of them.
type counts struct{ passed, failed, skipped int }

// ran is how many tests came to a verdict.
func (c counts) ran() int { return c.passed + c.failed }

// count counts tests.
func count(tests []*test) counts {
	var c counts
	for _, x := range tests {
		switch {
		case !counted(tests, x):
		case x.outcome == passed:
			c.passed++
		case x.outcome == skipped:
			c.skipped++
		default:
			c.failed++
		}
	}
	return c
}

// counted tells whether x stands for itself. A parent does only where none of its subtests tells what happened: when it failed and
// they did not.
func counted(tests []*test, x *test) bool {
	return !x.parent || x.outcome == failed && !anyUnder(tests, x, failed)
}

// anyUnder tells whether a subtest of x ended so.
func anyUnder(tests []*test, x *test, o outcome) bool {
	for _, y := range tests {
		if y.pkg == x.pkg && y.outcome == o && strings.HasPrefix(y.name, x.name+"/") {
			return true
		}
	}
	return false
}

// counts is the layer's result: its tests, and what could not run.
func (t *tally) counts() counts {
	c := count(t.order)
	c.failed += len(t.broken)
	return c
}

// failures are the tests that count as failed.
func (t *tally) failures() (all []*test) {
	for _, x := range t.order {
		if x.outcome == failed && counted(t.order, x) {
			all = append(all, x)
		}
	}
	return all
}

// skips are the reasons of the tests that were skipped, each with the tests that gave it.
func (t *tally) skips() (reasons []string, tests map[string][]string) {
	tests = map[string][]string{}
	for _, x := range t.order {
		if x.outcome != skipped || x.parent {
			continue
		}
		why := reason(x.output)
		if tests[why] == nil {
			reasons = append(reasons, why)
		}
		tests[why] = append(tests[why], x.name)
	}
	return reasons, tests
}

// where is the place that the testing package puts before what a test says.
var where = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

// reason is what a test said when it skipped.
func reason(output []string) string {
	for _, line := range output {
		if at := where.FindString(line); at != "" {
			return strings.TrimSpace(line[len(at):])
		}
	}
	return "no reason given"
}
