package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLegs: layers with an engine run once for each release, the others once.
func TestLegs(t *testing.T) {
	for releases, want := range map[string]string{
		"":                "unit, engine, lab",
		"28.5":            "unit, engine 28.5, lab 28.5",
		"20.10,26.1,28.5": "unit, engine 20.10, engine 26.1, engine 28.5, lab 20.10, lab 26.1, lab 28.5",
	} {
		parsed, err := parseReleases(releases)
		if err != nil {
			t.Fatal(err)
		}
		var titles []string
		for _, l := range legs([]layer{{name: "unit"}, {name: "engine"}, {name: "lab"}}, parsed) {
			titles = append(titles, l.title())
		}
		if got := strings.Join(titles, ", "); got != want {
			t.Errorf("-engine %q: got %s\nwant %s", releases, got, want)
		}
	}
}

func TestReleaseRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"26":        `-engine 26: "26" is no release of the engine; say 26.1, or 20.10,26.1 for one after the other`,
		"20.10 26":  `-engine 20.10 26: "20.10 26" is no release of the engine; say 26.1, or 20.10,26.1 for one after the other`,
		"26.1,":     `-engine 26.1,: "" is no release of the engine; say 26.1, or 20.10,26.1 for one after the other`,
		"26.1,26.1": `-engine 26.1,26.1: 26.1 is there twice`,
	} {
		if _, err := parseReleases(text); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// TestMatrix: one table has all layers on all engines, and what went wrong says on which.
func TestMatrix(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out, strip: "m"}
	all := legs([]layer{{name: "unit"}, {name: "engine"}, {name: "lab"}}, []string{"20.10", "28.5"})
	for i, l := range all {
		l.tally = newTally(r)
		l.tally.line(`{"Action":"run","Package":"m/p","Test":"TestA"}`)
		l.tally.line(`{"Action":"pass","Package":"m/p","Test":"TestA"}`)
		l.tally.took = time.Duration(i) * 1500 * time.Millisecond
	}
	all[2].tally.line(`{"Action":"run","Package":"m/p","Test":"TestB"}`)
	all[2].tally.line(`{"Action":"output","Package":"m/p","Test":"TestB","Output":"    b_test.go:7: there is no bond\n"}`)
	all[2].tally.line(`{"Action":"skip","Package":"m/p","Test":"TestB"}`)
	all[3].tally.broken = []string{"scripts/lab up: exit status 1"}
	out.Reset()
	if r.summary(all) {
		t.Error("a layer could not run, and the summary says that all is well")
	}
	want := strings.Join([]string{"",
		"layer    engine    ran   passed   failed   skipped   seconds",
		"unit     -           1        1        0         0       0.0",
		"engine   20.10       1        1        0         0       1.5",
		"engine   28.5        1        1        0         1       3.0",
		"lab      20.10       2        1        1         0       4.5",
		"lab      28.5        1        1        0         0       6.0",
		"engine 28.5: skipped: there is no bond (TestB)",
		"lab 20.10: did not run to its end: scripts/lab up: exit status 1",
		"",
		"5 passed, 1 failed, 1 skipped", ""}, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
