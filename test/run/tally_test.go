package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The events are what go test -json prints in each case, shortened.
func TestTally(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []string
		want   counts
		broken []string
		shown  string
	}{
		{
			name: "a parent is counted by its subtests",
			events: []string{
				`{"Action":"run","Package":"m/p","Test":"TestA"}`,
				`{"Action":"run","Package":"m/p","Test":"TestA/one"}`,
				`{"Action":"pass","Package":"m/p","Test":"TestA/one"}`,
				`{"Action":"run","Package":"m/p","Test":"TestA/two"}`,
				`{"Action":"pass","Package":"m/p","Test":"TestA/two"}`,
				`{"Action":"pass","Package":"m/p","Test":"TestA"}`,
				`{"Action":"run","Package":"m/p","Test":"TestB"}`,
				`{"Action":"pass","Package":"m/p","Test":"TestB"}`,
				`{"Action":"pass","Package":"m/p","Elapsed":1.5}`,
			},
			want:  counts{passed: 3},
			shown: "  ok    p                                                           3 passed     1.5s\n",
		},
		{
			name: "a failure is shown whole and counted once",
			events: []string{
				`{"Action":"run","Package":"m/p","Test":"TestA"}`,
				`{"Action":"output","Package":"m/p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
				`{"Action":"run","Package":"m/p","Test":"TestA/bad"}`,
				`{"Action":"output","Package":"m/p","Test":"TestA/bad","Output":"    a_test.go:3: got 1, want 2\n"}`,
				`{"Action":"fail","Package":"m/p","Test":"TestA/bad"}`,
				`{"Action":"fail","Package":"m/p","Test":"TestA"}`,
				`{"Action":"fail","Package":"m/p","Elapsed":0.1}`,
			},
			want: counts{failed: 1},
			shown: "  FAIL  p: TestA\n        a_test.go:3: got 1, want 2\n" +
				"  FAIL  p                                                           1 failed     0.1s\n",
		},
		{
			name: "a parent that fails itself counts beside its subtests",
			events: []string{
				`{"Action":"run","Package":"m/p","Test":"TestA"}`,
				`{"Action":"run","Package":"m/p","Test":"TestA/good"}`,
				`{"Action":"pass","Package":"m/p","Test":"TestA/good"}`,
				`{"Action":"fail","Package":"m/p","Test":"TestA"}`,
				`{"Action":"fail","Package":"m/p"}`,
			},
			want: counts{passed: 1, failed: 1},
			shown: "  FAIL  p: TestA\n" +
				"  FAIL  p                                                 1 passed, 1 failed     0.0s\n",
		},
		{
			name: "a test that takes its process with it failed",
			events: []string{
				`{"Action":"run","Package":"m/p","Test":"TestA"}`,
				`{"Action":"output","Package":"m/p","Output":"exit status 3\n"}`,
				`{"Action":"fail","Package":"m/p"}`,
			},
			want: counts{failed: 1},
			shown: "  FAIL  p: TestA\n    exit status 3\n" +
				"  FAIL  p                                                           1 failed     0.0s\n",
		},
		{
			name: "a package that does not build is one failure",
			events: []string{
				`{"ImportPath":"m/p [m/p.test]","Action":"build-output","Output":"p.go:1:2: syntax error\n"}`,
				`{"ImportPath":"m/p [m/p.test]","Action":"build-fail"}`,
				`{"Action":"output","Package":"m/p","Output":"FAIL\tm/p [build failed]\n"}`,
				`{"Action":"fail","Package":"m/p","FailedBuild":"m/p [m/p.test]"}`,
			},
			want:   counts{failed: 1},
			broken: []string{"m/p: failed outside of its tests"},
			shown: "    p.go:1:2: syntax error\n    FAIL\tm/p [build failed]\n" +
				"  FAIL  p                                                                        0.0s\n",
		},
		{
			name:   "a package without tests is not mentioned",
			events: []string{`{"Action":"skip","Package":"m/p"}`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			tally := newTally(&report{out: &out, strip: "m"})
			for _, e := range c.events {
				tally.line(e)
			}
			if diff := cmp.Diff(c.want, tally.counts(), cmp.AllowUnexported(counts{})); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.broken, tally.broken); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.shown, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLive: what a test of a layer that takes hours says is shown at once, and once.
func TestLive(t *testing.T) {
	var out bytes.Buffer
	tally := newTally(&report{out: &out, live: true, strip: "m"})
	tally.line(`{"Action":"run","Package":"m/p","Test":"TestA"}`)
	tally.line(`{"Action":"output","Package":"m/p","Test":"TestA","Output":"=== RUN   TestA\n"}`)
	tally.line(`{"Action":"output","Package":"m/p","Test":"TestA","Output":"    a_test.go:3: round 1\n"}`)
	const said = "        a_test.go:3: round 1\n"
	if diff := cmp.Diff(said, out.String()); diff != "" {
		t.Error(diff)
	}
	tally.line(`{"Action":"fail","Package":"m/p","Test":"TestA"}`)
	if diff := cmp.Diff(said+"  FAIL  p: TestA\n", out.String()); diff != "" {
		t.Error(diff)
	}
}

// TestSlowParts: in a layer whose tests are shown one by one, so are those parts of them that take the time.
func TestSlowParts(t *testing.T) {
	var out bytes.Buffer
	tally := newTally(&report{out: &out, each: true, strip: "m"})
	for _, e := range []string{
		`{"Action":"run","Package":"m/p","Test":"TestA"}`,
		`{"Action":"run","Package":"m/p","Test":"TestA/quick"}`,
		`{"Action":"pass","Package":"m/p","Test":"TestA/quick","Elapsed":0.5}`,
		`{"Action":"run","Package":"m/p","Test":"TestA/slow"}`,
		`{"Action":"pass","Package":"m/p","Test":"TestA/slow","Elapsed":61.25}`,
		`{"Action":"pass","Package":"m/p","Test":"TestA","Elapsed":61.75}`,
	} {
		tally.line(e)
	}
	want := "  ok    TestA                                                       2 passed    61.8s\n" +
		"          slow                                                                  61.2s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestADeadBinaryEndsItsPackage(t *testing.T) {
	var out bytes.Buffer
	tally := newTally(&report{out: &out, strip: "m"})
	tally.line(`{"Action":"run","Package":"m/p","Test":"TestA"}`)
	tally.end("m/p", false, 0)
	tally.end("m/p", false, 0) // once is enough
	if got, want := tally.counts(), (counts{failed: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out, strip: "m"}
	unit, lab := newTally(r), newTally(r)
	for _, e := range []string{
		`{"Action":"run","Package":"m/p","Test":"TestA"}`,
		`{"Action":"pass","Package":"m/p","Test":"TestA"}`,
		`{"Action":"run","Package":"m/p","Test":"TestB"}`,
		`{"Action":"output","Package":"m/p","Test":"TestB","Output":"    b_test.go:7: the kernel has no macvlan\n"}`,
		`{"Action":"skip","Package":"m/p","Test":"TestB"}`,
		`{"Action":"run","Package":"m/p","Test":"TestC"}`,
		`{"Action":"skip","Package":"m/p","Test":"TestC"}`,
		`{"Action":"run","Package":"m/p","Test":"TestD"}`,
		`{"Action":"output","Package":"m/p","Test":"TestD","Output":"=== RUN   TestD\n"}`,
		`{"Action":"output","Package":"m/p","Test":"TestD","Output":"    d_test.go:9: got 1\n        want 2\n"}`,
		`{"Action":"output","Package":"m/p","Test":"TestD","Output":"--- FAIL: TestD (0.00s)\n"}`,
		`{"Action":"fail","Package":"m/p","Test":"TestD"}`,
		`{"Action":"fail","Package":"m/p"}`,
	} {
		unit.line(e)
	}
	unit.took = 2500 * time.Millisecond
	lab.broken = []string{"scripts/lab up: exit status 1"}
	out.Reset()
	ok := r.summary([]*leg{{layer: layer{name: "unit"}, tally: unit}, {layer: layer{name: "lab"}, tally: lab}})
	if ok {
		t.Error("a layer could not run, and the summary says that all is well")
	}
	want := strings.Join([]string{"",
		"layer       ran   passed   failed   skipped   seconds",
		"unit          2        1        1         2       2.5",
		"lab           1        0        1         0       0.0",
		"unit: failed: p: TestD",
		"    d_test.go:9: got 1",
		"    want 2",
		"unit: skipped: the kernel has no macvlan (TestB)",
		"unit: skipped: no reason given (TestC)",
		"lab: did not run to its end: scripts/lab up: exit status 1",
		"",
		"1 passed, 2 failed, 2 skipped", ""}, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	got, err := choose("lab,unit")
	if err != nil || len(got) != 2 || got[0].name != "unit" || got[1].name != "lab" {
		t.Errorf("got %+v, %v; want unit and lab in the table's order", got, err)
	}
	_, err = choose("unit,nonsense")
	const want = `-layers unit,nonsense: no layer "nonsense"; there are unit, fuzz, kernel, cluster, engine, lab, crash, campaign, load`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
