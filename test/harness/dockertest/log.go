package dockertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// An Event is a line of the plugin's log, or a note that a test has put between them.
type Event struct {
	TS  time.Time
	Msg string

	Op, Request, Answer, Err string        // of a call, and of its payload
	Outcome                  string        // of a call
	Took                     time.Duration `json:"-"` // by a call
	Status                   int           // of the payload

	Test string `json:",omitempty"` // of a note
	Line string `json:",omitempty"`
}

// Log returns what the plugin has logged so far, in the order in which the engine wrote it down.
func Log() ([]Event, error) {
	text, err := Try("engine", "log")
	if err != nil {
		return nil, fmt.Errorf("the engine's log: %w", err)
	}
	return events(text), nil
}

// message matches the message of a line in the engine's log.
var message = regexp.MustCompile(`\bmsg=("(?:[^"\\]|\\.)*")`)

// events returns the events in an engine's log, which has lines of the engine too.
func events(log string) (all []Event) {
	for _, line := range strings.Split(log, "\n") {
		m := message.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		msg, err := strconv.Unquote(m[1])
		if err != nil {
			continue
		}
		var e Event
		if json.Unmarshal([]byte(msg), &e) == nil || parseText(msg, &e) {
			all = append(all, e)
		}
	}
	return all
}

// A line of the plugin's log as text: time, level, message, and fields, whose values are in single quotes if they are not plain words.
var (
	textLine  = regexp.MustCompile(`^(\S+) (?:debug|info|warn|error) (.*?)((?: \w+=(?:'(?:[^']|'')*'|[^\s']*))*)$`)
	textField = regexp.MustCompile(` (\w+)=('(?:[^']|'')*'|[^\s']*)`)
)

// parseText reads a line of the plugin's log that is text. It returns false for another line.
func parseText(line string, e *Event) bool {
	m := textLine.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	ts, err := time.Parse(time.RFC3339, m[1])
	if err != nil {
		return false
	}
	*e = Event{TS: ts, Msg: m[2]}
	fields := map[string]string{}
	for _, f := range textField.FindAllStringSubmatch(m[3], -1) {
		v, inQuotes := strings.CutPrefix(f[2], "'")
		if inQuotes {
			v = strings.ReplaceAll(strings.TrimSuffix(v, "'"), "''", "'")
		}
		fields[f[1]] = v
	}
	e.Op, e.Request, e.Answer, e.Err, e.Outcome = fields["op"], fields["request"], fields["answer"], fields["err"], fields["outcome"]
	e.Status, _ = strconv.Atoi(fields["status"])  // 0 for a line without it
	e.Took, _ = time.ParseDuration(fields["dur"]) // 0, too
	return true
}
