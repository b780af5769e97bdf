package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func run(name string) string  { return `{"Action":"run","Package":"p","Test":"` + name + `"}` }
func pass(name string) string { return `{"Action":"pass","Package":"p","Test":"` + name + `"}` }
func fail(name string) string { return `{"Action":"fail","Package":"p","Test":"` + name + `"}` }
func skip(name string) string { return `{"Action":"skip","Package":"p","Test":"` + name + `"}` }
func says(name, text string) string {
	return `{"Action":"output","Package":"p","Test":"` + name + `","Output":"` + text + `\n"}`
}

const passed, failed = `{"Action":"pass","Package":"p"}`, `{"Action":"fail","Package":"p"}`

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []string
		want   counts
		broken []string
	}{
		{"a parent is counted by its subtests", []string{
			run("A"), run("A/one"), pass("A/one"), run("A/two"), pass("A/two"), pass("A"), run("B"), pass("B"), passed,
		}, counts{passed: 3}, nil},
		{"a failure of a subtest is counted once",
			[]string{run("A"), run("A/x"), run("A/x/y"), fail("A/x/y"), fail("A/x"), fail("A"), failed}, counts{failed: 1}, nil},
		{"a parent that fails itself is counted with its subtests",
			[]string{run("A"), run("A/good"), pass("A/good"), fail("A"), failed}, counts{passed: 1, failed: 1}, nil},
		{"a test that ends its process has failed", []string{run("A"), failed}, counts{failed: 1}, nil},
		{"a test has failed if its package never ends", []string{run("A")}, counts{failed: 1}, nil},
		{"a package that does not compile is one failure",
			[]string{`{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}`, failed},
			counts{failed: 1}, []string{"p: failed outside of its tests\n    FAIL p [build failed]"}},
		{"a process that fails after its tests is one failure", []string{run("A"), pass("A"), failed},
			counts{passed: 1, failed: 1}, []string{"p: failed outside of its tests"}},
		{"a layer without a test is one failure", []string{`{"Action":"skip","Package":"p"}`}, counts{failed: 1}, []string{"no test ran"}},
		{"a skipped test is neither", []string{run("A"), skip("A"), passed}, counts{skipped: 1}, nil},
	} {
		l := newLayer("unit")
		l.read(strings.NewReader(strings.Join(c.events, "\n")))
		if diff := cmp.Diff(c.want, l.counts(), cmp.AllowUnexported(counts{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.broken, l.broken); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestSummary(t *testing.T) {
	unit, lab := newLayer("unit"), newLayer("lab-20.10")
	unit.read(strings.NewReader(strings.Join([]string{
		`{"Time":"2026-11-28T10:00:00Z","Action":"start","Package":"p"}`,
		run("A"), pass("A"),
		run("B"), says("B", "    b_test.go:7: the kernel has no macvlan"), skip("B"),
		run("C"), skip("C"),
		run("D"), says("D", "=== RUN   D"), says("D", `    d_test.go:9: got 1\n        want 2`), says("D", "--- FAIL: D (0.00s)"), fail("D"),
		`{"Time":"2026-11-28T10:00:02.5Z","Action":"fail","Package":"p"}`,
	}, "\n")))
	lab.read(strings.NewReader(`{"Action":"output","Package":"lab","Output":"make plugin failed\n"}` + "\n" + `{"Action":"fail","Package":"lab"}`))
	var out bytes.Buffer
	if summary(&out, []*layer{unit, lab}) {
		t.Error("a layer could not run, and summary returns true")
	}
	want := strings.Join([]string{"",
		"layer             ran   passed   failed   skipped   seconds",
		"unit                2        1        1         2       2.5",
		"lab-20.10           1        0        1         0       0.0",
		"unit: failed: p: D",
		"    d_test.go:9: got 1",
		"    want 2",
		"unit: skipped: the kernel has no macvlan (B)",
		"unit: skipped: no reason given (C)",
		"lab-20.10: lab: failed outside of its tests",
		"    make plugin failed",
		"",
		"1 passed, 2 failed, 2 skipped", ""}, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
