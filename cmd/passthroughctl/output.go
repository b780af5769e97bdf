package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A column of a table of rows of type T.
type column[T any] struct {
	name  string
	value func(row T) string
}

// write prints rows as --format says.
func write[T any](w io.Writer, format string, rows []T, columns []column[T]) error {
	switch format {
	case "table":
		return writeTable(w, rows, columns)
	case "json":
		if rows == nil {
			rows = []T{}
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	t, err := template.New("--format").Option("missingkey=error").Parse(format)
	if err != nil {
		return fmt.Errorf("--format is neither table nor json, nor a Go template: %w", err)
	}
	for _, row := range rows {
		if err := t.Execute(w, row); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// used returns the columns without those of optional that are empty in all rows.
func used[T any](rows []T, columns []column[T], optional ...string) []column[T] {
	return slices.DeleteFunc(columns, func(c column[T]) bool {
		return slices.Contains(optional, c.name) && !slices.ContainsFunc(rows, func(r T) bool { return c.value(r) != "" })
	})
}

// writeTable prints a line for each row, below a line of names. An empty value is "-". On a terminal the table is as wide as that.
func writeTable[T any](w io.Writer, rows []T, columns []column[T]) error {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	cells := [][]string{names}
	for _, row := range rows {
		values := make([]string, len(columns))
		for i, c := range columns {
			values[i] = cmp.Or(c.value(row), "-")
		}
		cells = append(cells, values)
	}
	if width := terminalWidth(w); width > 0 {
		_, err := io.WriteString(w, fitted(cells, width))
		return err
	}
	out := tabwriter.NewWriter(w, 0, 8, gap, ' ', 0)
	for _, line := range cells {
		_, _ = fmt.Fprintln(out, strings.Join(line, "\t")) // Flush returns its error
	}
	return out.Flush()
}

// gap is how many spaces are between two columns of a table.
const gap = 2

// terminalWidth returns the width of the terminal that w is, 0 if it is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return cmp.Or(int(size.Col), 80)
}

// cutTo is the least width to which a column is cut.
const cutTo = 6

// The columns of names and subnets are cut if a table is too wide. Those of whole sentences, which are last, have lines of their own then.
// Addresses and MACs are never cut.
var (
	cutColumns      = []string{"CONTAINER", "CONTAINERS", "NETWORK", "NETWORKS", "DEVICES", "DEVICE", "SUBNET", "SUBNETS", "MODEL", "NAME", "POOL"}
	sentenceColumns = []string{"REASON", "FINDING", "NOTE"}
)

// fitted returns a table, names first, that is no wider than a terminal, as far as that is possible.
func fitted(cells [][]string, width int) string {
	names, below := cells[0], false
	widths := make([]int, len(names))
	for i := range names {
		for _, line := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
	}
	if last := len(names) - 1; tableWidth(widths) > width && slices.Contains(sentenceColumns, names[last]) {
		widths, below = widths[:last], true
	}
	cutWidths(names, widths, width)
	var b strings.Builder
	for n, line := range cells {
		var row strings.Builder
		for i, w := range widths {
			fmt.Fprintf(&row, "%-*s", w+gap, shorten(line[i], w))
		}
		b.WriteString(strings.TrimRight(row.String(), " ") + "\n")
		if text := line[len(line)-1]; below && n > 0 && text != "-" {
			for _, part := range wrapped(text, width-gap) {
				b.WriteString(strings.Repeat(" ", gap) + part + "\n")
			}
		}
	}
	return b.String()
}

// tableWidth returns the width of a table with columns of these widths.
func tableWidth(widths []int) int {
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

// cutWidths makes the widest columns narrower that may be cut, until the table has a width.
func cutWidths(names []string, widths []int, width int) {
	for tableWidth(widths) > width {
		widest := -1
		for i, w := range widths {
			if slices.Contains(cutColumns, names[i]) && w > max(cutTo, len(names[i])) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// wrapped breaks a text between words into lines of a width. A longer word has a line of its own.
func wrapped(text string, width int) []string {
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		switch line := &lines[len(lines)-1]; {
		case *line == "":
			*line = word
		case utf8.RuneCountInString(*line)+1+utf8.RuneCountInString(word) <= width:
			*line += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// since returns how long ago a time was, in its largest unit; "" for the zero time.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t))
}

// span returns a time that passes in its largest unit.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
