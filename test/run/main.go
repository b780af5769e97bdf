package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	usual, more := layerNames()
	names := flag.String("layers", usual, "the layers to run; there are also "+more)
	engines := flag.String("engine", "", "releases of the Docker Engine for the layers engine and lab: 20.10, or 20.10,26.1,28.5")
	only := flag.String("only", "", "a regular expression: of tests behind a tag, those with such a name; after a slash, which of their subtests")
	fuzzTime := flag.String("fuzztime", "30s", "how long each target of the layer fuzz runs, or, as 2000x, how many inputs it tries")
	verbose := flag.Bool("v", false, "a line per test in every layer")
	flag.Parse()
	chosen, err := choose(*names)
	releases, releaseErr := parseReleases(*engines)
	if err := errors.Join(err, releaseErr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	chosenTests, parts, err := tests(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	module, root, err := thisModule()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	all := legs(chosen, releases)
	inTurn(all, os.Stdout, func(l *leg, out io.Writer, spare bool) {
		r := &report{out: out, each: *verbose || l.long, live: l.asked, strip: module}
		r.say("%s: %s", l.title(), l.what)
		l.tally = runLayer(ctx, l.layer, &stage{root: root, release: l.release, only: chosenTests, parts: parts, fuzzTime: *fuzzTime, spare: spare,
			tally: newTally(r)})
	})
	if !(&report{out: os.Stdout}).summary(all) {
		os.Exit(1)
	}
}

// layerNames are the names of the layers that run unless others are asked for, and of those others.
func layerNames() (usual, asked string) {
	names := map[bool][]string{}
	for _, l := range layers {
		names[l.asked] = append(names[l.asked], l.name)
	}
	return strings.Join(names[false], ","), strings.Join(names[true], ",")
}

// tests is what the names of tests behind a tag have to match, nil for none in particular, and parts what their subtests' do, with
// the slash before it.
func tests(only string) (names *regexp.Regexp, parts string, err error) {
	if only == "" {
		return nil, "", nil
	}
	name, subtests, some := strings.Cut(only, "/")
	if some {
		parts = "/" + subtests
	}
	if names, err = regexp.Compile(name); err != nil {
		err = fmt.Errorf("-only %s: %w", only, err)
	}
	return names, parts, err
}

// choose finds the layers by name; they run in the order of the table.
func choose(names string) ([]layer, error) {
	wanted := strings.Split(names, ",")
	var chosen []layer
	var known []string
	for _, l := range layers {
		known = append(known, l.name)
		if slices.Contains(wanted, l.name) {
			chosen = append(chosen, l)
		}
	}
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			return nil, fmt.Errorf("-layers %s: no layer %q; there are %s", names, w, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// thisModule is the path and the directory of the module that we are in.
func thisModule() (path, dir string, err error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}").Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m: %w", err)
	}
	path, dir, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return path, filepath.Clean(dir), nil
}

// runLayer runs one layer. That it could not run is a result like any other.
func runLayer(ctx context.Context, l layer, s *stage) *tally {
	t := s.tally
	ctx, cancel := context.WithTimeout(ctx, l.bound)
	defer cancel()
	if err := l.run(ctx, s); err != nil {
		t.broken = append(t.broken, err.Error())
		t.report.say("  FAIL  %s", err)
	} else if t.counts() == (counts{}) {
		t.broken = append(t.broken, "there is no test in it")
	}
	t.took = time.Since(t.started)
	return t
}
