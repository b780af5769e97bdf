package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTriedNothing: a fuzz target that passes without having tried an input has shown nothing.
func TestTriedNothing(t *testing.T) {
	for output, want := range map[string]string{
		`fuzz: elapsed: 5s, execs: 7 (1/sec), new interesting: 1 (total: 3)\n`: "",
		`fuzz: elapsed: 5s, execs: 0 (0/sec), new interesting: 0 (total: 0)\n`: "m/p.FuzzA: has tried no input",
		`fuzz: elapsed: 5s, gathering baseline coverage: 2/3 completed\n`:      "",
		`fuzz: elapsed: 0s, gathering baseline coverage: 0/3 completed\n`:      "m/p.FuzzA: has tried no input",
	} {
		tally := newTally(&report{out: new(bytes.Buffer), strip: "m"})
		for _, e := range []string{
			`{"Action":"run","Package":"m/p.FuzzA","Test":"FuzzA"}`,
			`{"Action":"output","Package":"m/p.FuzzA","Test":"FuzzA","Output":"` + output + `"}`,
			`{"Action":"pass","Package":"m/p.FuzzA","Test":"FuzzA","Elapsed":5}`,
			`{"Action":"pass","Package":"m/p.FuzzA","Elapsed":5}`,
		} {
			tally.line(e)
		}
		got := ""
		if err := tally.tried("m/p.FuzzA", "FuzzA"); err != nil {
			got = err.Error()
		}
		if got != want || tally.counts() != (counts{passed: 1}) {
			t.Errorf("%s: %q, %+v; want %q", output, got, tally.counts(), want)
		}
		if err := tally.tried("m/p.FuzzB", "FuzzB"); err == nil || err.Error() != "m/p.FuzzB: did not run" {
			t.Errorf("one that did not run: %v", err)
		}
	}
}

// TestModest: what runs beside another layer gives way to every process of the machine, also where nice alone counts within a
// session only.
func TestModest(t *testing.T) {
	const ask = `cat /proc/self/autogroup 2>/dev/null; nice; echo "$0 $@"; exit 3`
	line := (&stage{spare: true}).modest("sh", "-c", ask, "a name", "and more")
	out, err := exec.Command(line[0], line[1:]...).Output()
	group := `/autogroup-\d+ nice 19\n`
	if os.Geteuid() != 0 {
		group = `/autogroup-\d+ nice \d+\n` // of others the kernel takes no more than one such wish in 0.1 s
	}
	want := regexp.MustCompile(`^(` + group + `)?19\na name and more\n$`) // a kernel may have no groups, or not use them
	var exit *exec.ExitError
	if !want.Match(out) || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%q, %v; want %s and exit status 3", out, err, want)
	}
	if line := (&stage{}).modest("a", "b"); !slices.Equal(line, []string{"a", "b"}) {
		t.Errorf("with the machine to itself: %q", line)
	}
}

// TestFailingInput: the input that has made a target fail is among what it says, wherever that ends up.
func TestFailingInput(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0a1b"), []byte("go test fuzz v1\nbyte('x')\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	tally := newTally(&report{out: &out, strip: "m"})
	for _, e := range []string{
		`{"Action":"run","Package":"m/p.FuzzA","Test":"FuzzA"}`,
		`{"Action":"output","Package":"m/p.FuzzA","Test":"FuzzA","Output":"fuzz: elapsed: 0s, execs: 7 (7/sec)\n"}`,
		`{"Action":"output","Package":"m/p.FuzzA","Test":"FuzzA","Output":"    Failing input written to 0a1b\n"}`,
		`{"Action":"fail","Package":"m/p.FuzzA","Test":"FuzzA","Elapsed":5}`,
	} {
		tally.line(e)
	}
	tally.showInput("m/p.FuzzA", "FuzzA", dir)
	tally.showInput("m/p.FuzzB", "FuzzB", dir) // did not run
	want := "  FAIL  p.FuzzA: FuzzA\n        Failing input written to 0a1b\n    0a1b:\ngo test fuzz v1\nbyte('x')\n\n"
	if got := out.String(); got != want {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
	if got := lastWords(tally.failures()[0].output); !strings.HasSuffix(got, "\n    go test fuzz v1\n    byte('x')") {
		t.Errorf("its last words are %s", got)
	}
}
