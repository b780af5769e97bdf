package dockertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// An Event is a line of the plugin's log, or a note of a test among them.
type Event struct {
	TS  time.Time
	Msg string

	Op, Request, Answer, Err string // of a call, and of what was said in it
	Outcome                  string // of a call
	Status                   int    // of what was said

	Test string `json:",omitempty"` // of a note
	Line string `json:",omitempty"`
}

// Log is what the plugin has logged so far, in the order in which the engine has come to write it down.
func Log() ([]Event, error) {
	text, err := Try("engine", "log")
	if err != nil {
		return nil, fmt.Errorf("the engine's log: %w", err)
	}
	return events(text), nil
}

// message is that of a line in the engine's log.
var message = regexp.MustCompile(`\bmsg=("(?:[^"\\]|\\.)*")`)

// events are those in an engine's log, among what it has of its own.
func events(log string) (all []Event) {
	for _, line := range strings.Split(log, "\n") {
		var e Event
		m := message.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if msg, err := strconv.Unquote(m[1]); err == nil && json.Unmarshal([]byte(msg), &e) == nil {
			all = append(all, e)
		}
	}
	return all
}
