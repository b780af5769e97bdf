package dockertest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An event is a line in an engine's log that a transcript has something of: one of the plugin's log, or a note.
type event struct {
	TS   time.Time
	Msg  string
	Test string `json:",omitempty"` // of a note
	Line string `json:",omitempty"`

	Op, Request, Answer, Err string // of what was said in a call
	Status                   int
}

// What events are about: what was said in a call, a plugin that begins to listen, and what a test does.
const (
	spoken    = "said"
	listening = "listening"
	noted     = "note"
)

// answer is the status, unless it is 200, and what was sent.
func (e event) answer() string {
	if e.Err == "" {
		return e.Answer
	}
	text, _ := json.Marshal(e.Err) // a string
	return fmt.Sprintf(`%d {"Err":%s}`, e.Status, text)
}

// transcripts makes a transcript for each test of an engine's log, which has that of the plugin and the notes in it. What was
// said belongs to the test that has noted something last before.
func transcripts(log string) map[string]string {
	writers, w := map[string]*writer{}, newWriter()
	for _, e := range events(log) {
		switch e.Msg {
		case noted:
			if e.Test != "" && writers[e.Test] == nil {
				writers[e.Test] = newWriter()
			}
			w = cmp.Or(writers[e.Test], w)
			w.note(e.Line)
		case listening:
			w.restarted()
		case spoken:
			w.said(e)
		}
	}
	texts := map[string]string{}
	for test, w := range writers {
		if w.text.Len() > 0 {
			texts[test] = w.host.String() + w.text.String()
		}
	}
	return texts
}

// logged is the message of a line in the engine's log.
var logged = regexp.MustCompile(`\bmsg=("(?:[^"\\]|\\.)*")`)

// events are what the log has, in the order in which it happened: the engine writes down what a plugin says when it comes to it.
func events(log string) (all []event) {
	for _, line := range strings.Split(log, "\n") {
		var e event
		m := logged.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if msg, err := strconv.Unquote(m[1]); err == nil && json.Unmarshal([]byte(msg), &e) == nil {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.TS.Compare(b.TS) })
	return all
}
