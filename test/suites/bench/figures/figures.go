// Package figures collects what a measurement has found: a table to read, and the raw figures in a file.
package figures

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Figure is one raw figure.
type Figure struct {
	Column string    `json:"column"` // of the table
	Name   string    `json:"name"`
	Text   string    `json:"text"`            // as in the table
	Raw    []float64 `json:"raw,omitempty"`   // seconds, in the order in which they were measured
	Value  float64   `json:"value,omitempty"` // of a count or a ratio
}

// A Set has the figures of a run.
type Set struct {
	T      *testing.T
	Column string // of the figures that come next

	mu  sync.Mutex // guards all
	all []Figure
}

// Add adds a figure, and logs it at once: a run may be interrupted.
func (f *Set) Add(one Figure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one.Column = f.Column
	f.all = append(f.all, one)
	f.T.Logf("%s: %s: %s", one.Column, one.Name, one.Text)
}

// Value adds a number.
func (f *Set) Value(name, format string, value float64) {
	f.Add(Figure{Name: name, Text: fmt.Sprintf(format, value), Value: value})
}

// Times adds durations as their 50th and 99th percentile, and how many calls failed.
func (f *Set) Times(name string, took []time.Duration, failed int) {
	one := Figure{Name: name, Text: "-"}
	for _, d := range took {
		one.Raw = append(one.Raw, d.Seconds())
	}
	if len(took) > 0 {
		one.Text = fmt.Sprintf("%s / %s", Short(Quantile(took, 0.5)), Short(Quantile(took, 0.99)))
	}
	if failed > 0 {
		one.Text += fmt.Sprintf(", %d of %d fail", failed, failed+len(took))
	}
	f.Add(one)
}

// Quantile returns the smallest duration that is not below a share q of them.
func Quantile(took []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Short formats a duration with two digits.
func Short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// Table returns the figures as a table.
func (f *Set) Table() string {
	var columns, names []string
	texts := map[string]string{}
	for _, one := range f.all {
		if !slices.Contains(columns, one.Column) {
			columns = append(columns, one.Column)
		}
		if !slices.Contains(names, one.Name) {
			names = append(names, one.Name)
		}
		texts[one.Name+"\x00"+one.Column] = one.Text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, name := range names {
		fmt.Fprintf(&b, "| %s |", name)
		for _, column := range columns {
			fmt.Fprintf(&b, " %s |", texts[name+"\x00"+column])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Save writes the raw figures.
func (f *Set) Save(path string) error {
	raw, err := json.MarshalIndent(f.all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// Compare adds a row of two series that were measured in turn: ours, the other, and the ratio of their medians and of their 99th percentiles.
func (f *Set) Compare(name string, ours, other []time.Duration) {
	f.Column = "ours"
	f.Times(name, ours, 0)
	f.Column = "other"
	f.Times(name, other, 0)
	f.Column = "ratio"
	middle := Quantile(ours, 0.5).Seconds() / Quantile(other, 0.5).Seconds()
	last := Quantile(ours, 0.99).Seconds() / Quantile(other, 0.99).Seconds()
	f.Add(Figure{Name: name, Text: fmt.Sprintf("%.2f / %.2f", middle, last), Value: middle})
}

// Worse returns a line for each ratio that is more than share above the one of the file, which an earlier run has saved.
func (f *Set) Worse(path string, share float64) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var before []Figure
	if err := json.Unmarshal(raw, &before); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	was := map[string]float64{}
	for _, one := range before {
		if one.Column == "ratio" {
			was[one.Name] = one.Value
		}
	}
	var lines []string
	for _, one := range f.all {
		if old := was[one.Name]; one.Column == "ratio" && old > 0 && one.Value > old*(1+share) {
			lines = append(lines, fmt.Sprintf("%s: %.2f, was %.2f", one.Name, one.Value, old))
		}
	}
	return lines, nil
}
