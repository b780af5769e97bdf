package dockertest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// What events are about: what was said in a call, a plugin that begins to listen, and what a test does.
const (
	spoken    = "payload"
	listening = "listening"
	noted     = "note"
)

// answer is the status, unless it is 200, and what was sent.
func (e Event) answer() string {
	if e.Err == "" {
		return e.Answer
	}
	text, _ := json.Marshal(e.Err) // a string
	return fmt.Sprintf(`%d {"Err":%s}`, e.Status, text)
}

// transcripts makes a transcript for each test. What was said belongs to the test that has noted something last before.
func transcripts(log []Event) map[string]string {
	writers, w := map[string]*writer{}, newWriter()
	log = slices.SortedStableFunc(slices.Values(log), func(a, b Event) int { return a.TS.Compare(b.TS) })
	for _, e := range log {
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
