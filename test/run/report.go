package main

import (
	"fmt"
	"io"
	"strings"
)

// A report is what a person reads while the tests run.
type report struct {
	out   io.Writer
	each  bool   // a line per test, not only per package
	live  bool   // what tests say is shown at once, and not only of those that fail
	strip string // the module's path, left out of package names
}

// say prints a line. An output that cannot be written to has no reader.
func (r *report) say(format string, args ...any) { _, _ = fmt.Fprintf(r.out, format+"\n", args...) }

// note passes on a line that a tool printed.
func (r *report) note(line string) {
	if strings.TrimSpace(line) != "" {
		r.say("    %s", line)
	}
}

// test shows a test that has ended, with all its output if it failed.
func (r *report) test(x *test, family []*test) {
	if x.outcome != failed {
		if r.each {
			r.say("  %-4s  %-46s %21s %7.1fs", word(x.outcome), x.name, numbers(count(family)), x.seconds)
			r.slowParts(x, family)
		}
		return
	}
	r.say("  FAIL  %s: %s", r.short(x.pkg), x.name)
	if r.live {
		return
	}
	for _, y := range family {
		for _, line := range y.output {
			r.output(line)
		}
	}
}

// slowParts shows where the time of a test has gone.
func (r *report) slowParts(x *test, family []*test) {
	const slow = 10 // seconds
	for _, y := range family {
		if y != x && y.seconds >= slow {
			r.say("          %-66s %7.1fs", strings.TrimPrefix(y.name, x.name+"/"), y.seconds)
		}
	}
}

// output shows what a test says.
func (r *report) output(line string) {
	if !ofTools(line) {
		r.say("    %s", strings.TrimSuffix(line, "\n"))
	}
}

// ofTools tells whether a line of a test's output is an account of how far it is, which does not tell why it failed.
func ofTools(line string) bool {
	return strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "fuzz: elapsed: ")
}

// pack shows a package that has ended, with what it printed outside of its tests if it failed.
func (r *report) pack(e event, c counts, outside []string) {
	o := outcome(e.Action)
	if o == skipped && c == (counts{}) {
		return // no test files
	}
	if o == failed {
		for _, line := range outside {
			r.say("    %s", strings.TrimSuffix(line, "\n"))
		}
	}
	r.say("  %-4s  %-46s %21s %7.1fs", word(o), r.short(e.Package), numbers(c), e.Elapsed)
}

// short is a package's name without the module's.
func (r *report) short(pkg string) string {
	if pkg == r.strip {
		return "."
	}
	return strings.TrimPrefix(pkg, r.strip+"/")
}

// word is an outcome in the first column.
func word(o outcome) string {
	switch o {
	case passed:
		return "ok"
	case skipped:
		return "skip"
	}
	return "FAIL"
}

// numbers are the counts of a line, those that are zero left out.
func numbers(c counts) string {
	var parts []string
	for _, n := range []struct {
		count int
		word  string
	}{{c.passed, "passed"}, {c.failed, "failed"}, {c.skipped, "skipped"}} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.word))
		}
	}
	return strings.Join(parts, ", ")
}

// lastWords are the last lines of what a failed test has said, below its name: whoever sees no more than the end of a long output
// is to see why. A test of the engine says whole logs.
func lastWords(output []string) string {
	const lines, longest = 8, 400
	var said []string
	for _, text := range output {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !ofTools(line) && !strings.HasPrefix(line, "--- ") {
				said = append(said, "\n    "+line[:min(len(line), longest)])
			}
		}
	}
	return strings.Join(said[max(0, len(said)-lines):], "")
}

// summary shows all legs and, as the last line, the sum; it tells whether nothing failed.
func (r *report) summary(all []*leg) bool {
	var sum counts
	r.say("%s", heading(all))
	for _, l := range all {
		c := l.tally.counts()
		r.say("%s", row(all, l))
		sum = counts{sum.passed + c.passed, sum.failed + c.failed, sum.skipped + c.skipped}
	}
	for _, l := range all {
		for _, why := range l.tally.broken {
			r.say("%s: did not run to its end: %s", l.title(), why)
		}
		for _, x := range l.tally.failures() {
			r.say("%s: failed: %s: %s%s", l.title(), r.short(x.pkg), x.name, lastWords(x.output))
		}
		reasons, tests := l.tally.skips()
		for _, why := range reasons {
			r.say("%s: skipped: %s (%s)", l.title(), why, strings.Join(tests[why], ", "))
		}
	}
	r.say("\n%d passed, %d failed, %d skipped", sum.passed, sum.failed, sum.skipped)
	return sum.failed == 0
}
