package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap/zapcore"
)

// textCore writes a line of text for each entry: its time, level and message, and its fields as key=value. Warnings and errors go to errors,
// all else to out. A value that is not one plain word is in single quotes, and a single quote in it is doubled: an engine puts the line into
// double quotes of its own (logrus, TextFormatter), in which these need no backslash.
type textCore struct {
	zapcore.LevelEnabler
	out, errors zapcore.WriteSyncer
	// journal is true if systemd's journal reads the lines: it has a time of its own, and takes the level from a prefix (sd-daemon(3)).
	journal bool
	fields  []zapcore.Field
}

// newTextCore returns a core that writes to these streams, which may be one.
func newTextCore(out, errors io.Writer, level zapcore.LevelEnabler) *textCore {
	return &textCore{LevelEnabler: level, out: zapcore.Lock(zapcore.AddSync(out)), errors: zapcore.Lock(zapcore.AddSync(errors)),
		journal: isJournal(out, os.Getenv("JOURNAL_STREAM"))}
}

// isJournal reports whether a stream is the one that JOURNAL_STREAM names by device and inode (systemd.exec(5)).
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// With returns a core that adds fields to each line.
func (c *textCore) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.fields = slices.Concat(c.fields, fields)
	return &with
}

// Check adds the core to an entry that it is to write.
func (c *textCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write writes the line of an entry.
func (c *textCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	var b strings.Builder
	if c.journal {
		fmt.Fprintf(&b, "<%d>", priority(e.Level))
	} else {
		b.WriteString(e.Time.Format(logTime) + " ")
	}
	b.WriteString(e.Level.String() + " " + oneLine(e.Message))
	for _, f := range slices.Concat(c.fields, fields) {
		if f.Type == zapcore.SkipType {
			continue
		}
		b.WriteString(" " + f.Key + "=" + quoted(fieldText(f)))
	}
	b.WriteString("\n")
	stream := c.out
	if e.Level >= zapcore.WarnLevel {
		stream = c.errors
	}
	_, err := stream.Write([]byte(b.String()))
	return err
}

// Sync has nothing to write: each line is written at once.
func (c *textCore) Sync() error { return nil }

// priority returns the priority of syslog for a level (syslog(3)).
func priority(l zapcore.Level) int {
	switch {
	case l >= zapcore.ErrorLevel:
		return 3
	case l == zapcore.WarnLevel:
		return 4
	case l == zapcore.InfoLevel:
		return 6
	}
	return 7
}

// fieldText returns the value of a field as text.
func fieldText(f zapcore.Field) string {
	all := zapcore.NewMapObjectEncoder()
	f.AddTo(all)
	return logValue(all.Fields[f.Key])
}

// logValue returns a value as text.
func logValue(v any) string {
	switch v := v.(type) {
	case fmt.Stringer:
		return logDuration(v)
	case map[string]int64:
		var all []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = append(all, name+" "+strconv.FormatInt(v[name], 10))
		}
		return strings.Join(all, ", ")
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, logValue(x))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v)
}

// oneLine returns a text as one line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ReplaceAll(text, "\n", "; "))
}

// quoted returns a value, in single quotes if it is not one plain word.
func quoted(v string) string {
	v = oneLine(v)
	if v != "" && !strings.ContainsAny(v, ` '"=`) {
		return v
	}
	return "'" + strings.ReplaceAll(v, "'", "''") + "'"
}
