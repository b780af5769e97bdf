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

	Op, Request, Answer, Err string // of a call, and of its payload
	Outcome                  string // of a call
	Status                   int    // of the payload

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
