package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
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

// writeTable prints a line for each row, below a line of names. An empty value is "-".
func writeTable[T any](w io.Writer, rows []T, columns []column[T]) error {
	out := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(value func(column[T]) string) {
		values := make([]string, 0, len(columns))
		for _, c := range columns {
			v := value(c)
			if v == "" {
				v = "-"
			}
			values = append(values, v)
		}
		_, _ = fmt.Fprintln(out, strings.Join(values, "\t")) // Flush returns its error
	}
	line(func(c column[T]) string { return c.name })
	for _, row := range rows {
		line(func(c column[T]) string { return c.value(row) })
	}
	return out.Flush()
}

// since returns how long ago a time was, in its largest unit; "" for the zero time.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(time.Since(t), 0)
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
