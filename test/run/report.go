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
		}
		return
	}
	r.say("  FAIL  %s: %s", r.short(x.pkg), x.name)
	for _, y := range family {
		for _, line := range y.output {
			if !strings.HasPrefix(line, "=== ") {
				r.say("    %s", strings.TrimSuffix(line, "\n"))
			}
		}
	}
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

// summary shows all layers and, as the last line, the sum; it tells whether nothing failed.
func (r *report) summary(layers []layer, tallies map[string]*tally) bool {
	var sum counts
	r.say("\n%-8s %6s %8s %8s %9s %9s", "layer", "ran", "passed", "failed", "skipped", "seconds")
	for _, l := range layers {
		t := tallies[l.name]
		c := t.counts()
		r.say("%-8s %6d %8d %8d %9d %9.1f", l.name, c.ran(), c.passed, c.failed, c.skipped, t.took.Seconds())
		sum = counts{sum.passed + c.passed, sum.failed + c.failed, sum.skipped + c.skipped}
	}
	for _, l := range layers {
		t := tallies[l.name]
		for _, why := range t.broken {
			r.say("%s: did not run to its end: %s", l.name, why)
		}
		reasons, tests := t.skips()
		for _, why := range reasons {
			r.say("%s: skipped: %s (%s)", l.name, why, strings.Join(tests[why], ", "))
		}
	}
	r.say("\n%d passed, %d failed, %d skipped", sum.passed, sum.failed, sum.skipped)
	return sum.failed == 0
}
