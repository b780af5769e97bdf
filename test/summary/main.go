// Command summary adds up the events of "go test -json" that test/run has stored, a file per layer, and prints a table, the tests
// that failed or were skipped, and as its last line
//
//	N passed, N failed, N skipped
//
// A test with subtests is counted by its subtests. A package that fails outside of its tests is one failure, and so is a layer
// without a test. The exit status is 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	var layers []*layer
	for _, file := range os.Args[1:] {
		l := newLayer(strings.TrimSuffix(filepath.Base(file), ".json"))
		layers = append(layers, l)
		if f, err := os.Open(file); err != nil {
			l.broken = append(l.broken, err.Error())
		} else {
			l.read(f)
			_ = f.Close()
		}
	}
	if !summary(os.Stdout, layers) {
		os.Exit(1)
	}
}

// An event is a line of go test -json; see go doc test2json.
type event struct {
	Time    time.Time
	Action  string
	Package string
	Test    string
	Output  string
}

// A test is a test or a subtest. Its outcome is "pass", "fail" or "skip", and "" while it runs.
type test struct {
	pkg, name, outcome string
	parent             bool // has subtests
	failedPart         bool // a subtest failed
	output             []string
}

// counted returns whether a test stands for itself: it has no subtests, or failed while they did not.
func (t *test) counted() bool { return !t.parent || t.outcome == "fail" && !t.failedPart }

// A layer is what the events of one layer say.
type layer struct {
	name        string
	tests       []*test // in the order of their start
	byName      map[string]*test
	outside     map[string][]string // the output of a package outside of its tests
	broken      []string            // why a package did not run to its end
	first, last time.Time
}

func newLayer(name string) *layer {
	return &layer{name: name, byName: map[string]*test{}, outside: map[string][]string{}}
}

// read takes all events of a layer.
func (l *layer) read(events io.Reader) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			l.add(e)
		}
		if err != nil {
			break
		}
	}
	if len(l.tests) == 0 && len(l.broken) == 0 {
		l.broken = append(l.broken, "no test ran")
	}
	for _, t := range l.tests {
		if t.outcome == "" {
			t.outcome = "fail" // its process died before the package could end
		}
	}
	for _, t := range l.tests {
		if t.outcome == "fail" {
			l.markParents(t)
		}
	}
}

func (l *layer) add(e event) {
	if !e.Time.IsZero() {
		if l.first.IsZero() {
			l.first = e.Time
		}
		l.last = e.Time
	}
	switch {
	case e.Test != "":
		l.addTest(e)
	case e.Action == "output" || e.Action == "build-output":
		l.outside[e.Package] = append(l.outside[e.Package], e.Output)
	case e.Action == "fail":
		l.endPackage(e.Package)
	}
}

func (l *layer) addTest(e event) {
	key := e.Package + " " + e.Test
	t := l.byName[key]
	if t == nil {
		t = &test{pkg: e.Package, name: e.Test}
		l.byName[key] = t
		l.tests = append(l.tests, t)
		if up := l.byName[e.Package+" "+parent(e.Test)]; up != nil {
			up.parent = true
		}
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.outcome = e.Action
	}
}

// endPackage takes the failure of a package: a test that still runs has taken the process with it.
func (l *layer) endPackage(pkg string) {
	failed := false
	for _, t := range l.tests {
		if t.pkg == pkg {
			if t.outcome == "" {
				t.outcome = "fail"
				t.output = append(t.output, l.outside[pkg]...)
			}
			failed = failed || t.outcome == "fail"
		}
	}
	if !failed {
		l.broken = append(l.broken, pkg+": failed outside of its tests"+tail(l.outside[pkg]))
	}
}

// parent is the name of the test that a subtest is part of.
func parent(name string) string { return name[:max(0, strings.LastIndex(name, "/"))] }

func (l *layer) markParents(t *test) {
	for name := parent(t.name); name != ""; name = parent(name) {
		if up := l.byName[t.pkg+" "+name]; up != nil {
			up.failedPart = true
		}
	}
}

// counts are numbers of tests.
type counts struct{ passed, failed, skipped int }

func (l *layer) counts() counts {
	c := counts{failed: len(l.broken)}
	for _, t := range l.tests {
		switch {
		case !t.counted():
		case t.outcome == "pass":
			c.passed++
		case t.outcome == "skip":
			c.skipped++
		default:
			c.failed++
		}
	}
	return c
}

// summary prints all layers and their sum, and returns whether nothing failed.
func summary(out io.Writer, layers []*layer) bool {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	var sum counts
	say("\n%-14s %6s %8s %8s %9s %9s", "layer", "ran", "passed", "failed", "skipped", "seconds")
	for _, l := range layers {
		c := l.counts()
		say("%-14s %6d %8d %8d %9d %9.1f", l.name, c.passed+c.failed, c.passed, c.failed, c.skipped, l.last.Sub(l.first).Seconds())
		sum = counts{sum.passed + c.passed, sum.failed + c.failed, sum.skipped + c.skipped}
	}
	for _, l := range layers {
		for _, why := range l.broken {
			say("%s: %s", l.name, why)
		}
		for _, t := range l.tests {
			if t.outcome == "fail" && t.counted() {
				say("%s: failed: %s: %s%s", l.name, t.pkg, t.name, tail(t.output))
			}
		}
		l.skips(say)
	}
	say("\n%d passed, %d failed, %d skipped", sum.passed, sum.failed, sum.skipped)
	return sum.failed == 0
}

// skips prints each reason for a skip once, with the tests that gave it.
func (l *layer) skips(say func(string, ...any)) {
	var reasons []string
	names := map[string][]string{}
	for _, t := range l.tests {
		if t.outcome == "skip" && t.counted() {
			why := skipReason(t.output)
			if !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
			names[why] = append(names[why], t.name)
		}
	}
	for _, why := range reasons {
		say("%s: skipped: %s (%s)", l.name, why, strings.Join(names[why], ", "))
	}
}

// position is what the testing package prints before the words of a test.
var position = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

func skipReason(output []string) string {
	for _, line := range output {
		if at := position.FindString(line); at != "" {
			return strings.TrimSpace(line[len(at):])
		}
	}
	return "no reason given"
}

// tail returns the last lines of an output, each on a line of its own. gotestsum has shown all of it.
func tail(output []string) string {
	const lines, longest = 8, 400
	var last []string
	for line := range strings.Lines(strings.Join(output, "")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "fuzz: elapsed: ") {
			continue
		}
		last = append(last, "\n    "+line[:min(len(line), longest)])
	}
	return strings.Join(last[max(0, len(last)-lines):], "")
}
