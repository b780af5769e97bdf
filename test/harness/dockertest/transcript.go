package dockertest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// Kinds of events: the payload of a call, a plugin that starts to listen, and a note of a test.
const (
	spoken    = "payload"
	listening = "listening"
	noted     = "note"
)

// answer returns the answer to a call, after its status if that is not 200.
func (e Event) answer() string {
	if e.Err == "" {
		return e.Answer
	}
	text, _ := json.Marshal(e.Err) // a string
	return fmt.Sprintf(`%d {"Err":%s}`, e.Status, text)
}

// transcripts returns a transcript for each test. A call belongs to the test that made the last note before it.
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
