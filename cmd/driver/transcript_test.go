package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A transcript is the calls between an engine and the plugin, as in testdata/engine and testdata/recorded: a line for each event, which
// begins with its kind.
//
//	# a note for people
//	$ what the user did
//	> OPERATION [BODY]     the engine calls; without a body it has lost an answer, or the call has none
//	< [STATUS] BODY        the answer, with status 200 if none is given; "< lost" if the engine did not wait for it.
//	                       Without such a line the answer is {}
//	! EVENT                what else happens, see sideEvents
//
// $NAME in it stands for an ID or for what an answer has brought, see names.
type transcript struct {
	path  string
	lines []string
}

// readTranscript reads a file.
func readTranscript(path string) (*transcript, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &transcript{path, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")}, nil
}

// write puts it in its file.
func (t *transcript) write() error {
	return os.WriteFile(t.path, []byte(strings.Join(t.lines, "\n")+"\n"), 0o644)
}

// idSizes are the lengths of the engine's IDs by the first letter of their name: networks, those of a swarm, endpoints, sandboxes. An ID
// is its name repeated, so that it can be recognized in an error.
var idSizes = map[byte]int{'n': 64, 'w': 25, 'e': 64, 's': 12}

// placeholder is a name in a transcript; one in capital letters is an ID shortened to 12 characters.
var placeholder = regexp.MustCompile(`\$[a-zA-Z]+[0-9]+`)

// names are values from answers by their name: $p1 is a pool's handle, $m1 a device's MAC.
type names map[string]string

// expand replaces the names in a text by their values.
func (n names) expand(text string) (string, error) {
	var unknown error
	text = placeholder.ReplaceAllStringFunc(text, func(s string) string {
		v, ok := n.value(s)
		if !ok {
			unknown = fmt.Errorf("the name %s has no value", s)
		}
		return v
	})
	return text, unknown
}

// value returns the value of a name.
func (n names) value(s string) (string, bool) {
	if v, ok := n[s]; ok {
		return v, true
	}
	low := strings.ToLower(s[1:])
	size := idSizes[low[0]]
	if size == 0 {
		return "", false
	}
	id := strings.Repeat(low, size)[:size]
	if low != s[1:] {
		id = id[:12]
	}
	return id, true
}

// learn takes the value of each new name of the expected answer from the given one. The name is the whole text or its beginning.
func (n names) learn(want, got any) {
	switch want := want.(type) {
	case string:
		name := placeholder.FindString(want)
		rest, begins := strings.CutPrefix(want, name)
		if v, ok := got.(string); ok && begins && name != "" && strings.HasSuffix(v, rest) {
			if _, known := n.value(name); !known {
				n[name] = strings.TrimSuffix(v, rest)
			}
		}
	case map[string]any:
		if got, ok := got.(map[string]any); ok {
			for k := range want {
				n.learn(want[k], got[k])
			}
		}
	case []any:
		if got, ok := got.([]any); ok && len(got) == len(want) {
			for i := range want {
				n.learn(want[i], got[i])
			}
		}
	}
}

// shorten is the reverse of expand for values from answers, and for shortened IDs.
func (n names) shorten(text string) string {
	for s, v := range n {
		text = strings.ReplaceAll(text, `"`+v+`"`, `"`+s+`"`)
	}
	return regexp.MustCompile(`\b([new]\d+?)(?:[new]\d*){2,11}\b`).ReplaceAllStringFunc(text, func(id string) string {
		for size := 2; size < 4; size++ {
			s := strings.ToUpper(id[:size])
			if v, ok := n.value("$" + s); ok && v == id {
				return "$" + s
			}
		}
		return id
	})
}

// wanted is a line that begins with <: the expected answer.
type wanted struct {
	lost   bool
	status int
	body   any
}

// readWanted parses such a line.
func readWanted(line string) (wanted, error) {
	w := wanted{status: 200}
	text := strings.TrimSpace(strings.TrimPrefix(line, "<"))
	if text == "" {
		return wanted{status: 200, body: map[string]any{}}, nil
	}
	if text == "lost" {
		return wanted{lost: true}, nil
	}
	if text != "" && text[0] != '{' {
		if _, err := fmt.Sscan(text, &w.status); err != nil {
			return w, fmt.Errorf("%s: %w", line, err)
		}
		_, text, _ = strings.Cut(text, " ")
	}
	err := json.Unmarshal([]byte(text), &w.body)
	w.body = brief(w.body)
	return w, err
}

// openEnded lets an expected text that ends with "..." match any text that begins so.
var openEnded = cmp.FilterValues(
	func(want, got string) bool { return strings.HasSuffix(want, "...") || strings.HasSuffix(got, "...") },
	cmp.Comparer(func(x, y string) bool {
		return strings.HasPrefix(y, strings.TrimSuffix(x, "...")) || strings.HasPrefix(x, strings.TrimSuffix(y, "..."))
	}))

// bounded is a duration in a side event.
func bounded(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	return time.ParseDuration(text)
}
