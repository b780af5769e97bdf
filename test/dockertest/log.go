package dockertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Logged is a line of the plugin's log.
type Logged struct {
	Msg, Op, Outcome, Request, Answer, Err string
	Status                                 int
}

// Log is what the plugin has logged so far: the engine's log has it.
func Log() ([]Logged, error) {
	text, err := Try("engine", "log")
	if err != nil {
		return nil, fmt.Errorf("the engine's log: %w", err)
	}
	return logged(text), nil
}

// message is that of a line in the engine's log.
var message = regexp.MustCompile(`\bmsg=("(?:[^"\\]|\\.)*")`)

// logged are the lines of the plugin in an engine's log.
func logged(text string) (lines []Logged) {
	for _, line := range strings.Split(text, "\n") {
		var l Logged
		m := message.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		msg, err := strconv.Unquote(m[1])
		if err == nil && json.Unmarshal([]byte(msg), &l) == nil {
			lines = append(lines, l)
		}
	}
	return lines
}
