package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// engineLayers are the layers with a Docker Engine: with several releases of it they run once on each.
var engineLayers = []string{"engine", "lab", "crash"}

// A leg is one run of one layer.
type leg struct {
	layer
	release string // of the Docker Engine; "" for the default of scripts/engine and scripts/lab, or for none
	tally   *tally
}

// title is what a leg is called where there may be others of its layer.
func (l *leg) title() string { return strings.TrimSpace(l.name + " " + l.shown()) }

// shown is the release in the table: "" where it does not matter.
func (l *leg) shown() string {
	if !slices.Contains(engineLayers, l.name) {
		return ""
	}
	return l.release
}

// legs are the runs of the chosen layers: one each, or one for each release where there is an engine in the layer.
func legs(chosen []layer, releases []string) []*leg {
	var all []*leg
	for _, l := range chosen {
		on := releases
		if !slices.Contains(engineLayers, l.name) {
			on = releases[:1]
		}
		for _, r := range on {
			all = append(all, &leg{layer: l, release: r})
		}
	}
	return all
}

// release is how a release of the engine is written; which of them there are, scripts/lab knows.
var release = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

// parseReleases reads the releases that the user has named, separated by commas; none is the default.
func parseReleases(text string) ([]string, error) {
	if text == "" {
		return []string{""}, nil
	}
	releases := strings.Split(text, ",")
	for i, r := range releases {
		if !release.MatchString(r) {
			return nil, fmt.Errorf("-engine %s: %q is no release of the engine; say 26.1, or 20.10,26.1 for one after the other", text, r)
		}
		if slices.Contains(releases[:i], r) {
			return nil, fmt.Errorf("-engine %s: %s is there twice", text, r)
		}
	}
	return releases, nil
}

// heading is the first line of the table, which has a column for the engine if one was named.
func heading(all []*leg) string {
	return fmt.Sprintf("\n%s %6s %8s %8s %9s %9s", first(all, "layer", "engine"), "ran", "passed", "failed", "skipped", "seconds")
}

// row is a leg in the table.
func row(all []*leg, l *leg) string {
	c := l.tally.counts()
	return fmt.Sprintf("%s %6d %8d %8d %9d %9.1f", first(all, l.name, cmp.Or(l.shown(), "-")),
		c.ran(), c.passed, c.failed, c.skipped, l.tally.took.Seconds())
}

// first is what the lines of the table begin with.
func first(all []*leg, name, release string) string {
	if !slices.ContainsFunc(all, func(l *leg) bool { return l.shown() != "" }) {
		return fmt.Sprintf("%-8s", name)
	}
	return fmt.Sprintf("%-8s %-6s", name, release)
}
