package scale

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

// figure is one raw figure.
type figure struct {
	Pool  string    `json:"pool"` // "" for one that is of no pool
	Name  string    `json:"name"`
	Text  string    `json:"text"`            // as in the table
	Raw   []float64 `json:"raw,omitempty"`   // seconds, in the order in which they were measured
	Value float64   `json:"value,omitempty"` // of a count or a ratio
}

// figures are those of a run.
type figures struct {
	t    *testing.T
	pool string

	mu  sync.Mutex // guards all
	all []figure
}

// add adds a figure, and logs it at once: a run may be interrupted.
func (f *figures) add(one figure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one.Pool = f.pool
	f.all = append(f.all, one)
	f.t.Logf("%s: %s: %s", one.Pool, one.Name, one.Text)
}

// value adds a number.
func (f *figures) value(name, format string, value float64) {
	f.add(figure{Name: name, Text: fmt.Sprintf(format, value), Value: value})
}

// times adds durations as their 50th and 99th percentile, and how many calls failed.
func (f *figures) times(name string, took []time.Duration, failed int) {
	one := figure{Name: name, Text: "-"}
	for _, d := range took {
		one.Raw = append(one.Raw, d.Seconds())
	}
	if len(took) > 0 {
		one.Text = fmt.Sprintf("%s / %s", short(quantile(took, 0.5)), short(quantile(took, 0.99)))
	}
	if failed > 0 {
		one.Text += fmt.Sprintf(", %d of %d fail", failed, failed+len(took))
	}
	f.add(one)
}

// quantile returns the smallest duration that is not below a share q of them.
func quantile(took []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// short formats a duration with two digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// table returns the figures as a table with a column for each pool.
func (f *figures) table() string {
	var pools, names []string
	texts := map[string]string{}
	for _, one := range f.all {
		if !slices.Contains(pools, one.Pool) {
			pools = append(pools, one.Pool)
		}
		if !slices.Contains(names, one.Name) {
			names = append(names, one.Name)
		}
		texts[one.Name+"\x00"+one.Pool] = one.Text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(pools, " | "), strings.Repeat("---|", len(pools)))
	for _, name := range names {
		fmt.Fprintf(&b, "| %s |", name)
		for _, pool := range pools {
			fmt.Fprintf(&b, " %s |", texts[name+"\x00"+pool])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// save writes the raw figures.
func (f *figures) save(path string) error {
	raw, err := json.MarshalIndent(f.all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}
