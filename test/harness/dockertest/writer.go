package dockertest

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// A writer writes the transcript of one test.
type writer struct {
	host   strings.Builder // the hardware of the machine
	text   strings.Builder
	user   string // what the user did, if there was no call since
	ids    idNames
	inside map[device]string // the endpoints whose devices are in containers
}

// device is one in a container.
type device struct{ sandbox, name string }

func newWriter() *writer {
	return &writer{ids: idNames{map[string]string{}, map[string]int{}}, inside: map[device]string{}}
}

// line writes a line.
func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// note keeps what a test does. An action of the user is written only if a call follows it; the hardware is written first, as if it had
// existed from the start.
func (w *writer) note(line string) {
	switch {
	case strings.HasPrefix(line, "$"):
		w.user = line
	case line != "":
		fmt.Fprintln(&w.host, line)
	}
}

// restarted writes that the plugin was started, unless the transcript is still empty.
func (w *writer) restarted() {
	if w.text.Len() > 0 {
		w.line("! restart")
	}
}

// said writes a call, its answer and what the engine does then.
func (w *writer) said(e Event) {
	request, answer := w.ids.shorten(e.Request, asked), w.ids.shorten(e.answer(), answered)
	call := strings.TrimSpace("> " + e.Op + " " + request)
	if answer != "{}" {
		call += "\n< " + answer
	}
	if w.user != "" {
		w.line("\n%s", w.ids.shorten(w.user, nil))
		w.user = ""
	}
	w.line("%s", call)
	if e.Err == "" {
		w.moved(e.Op, request, answer)
	}
}

// moved writes what an engine does with a device after an answer.
func (w *writer) moved(op, request, answer string) {
	var q struct{ EndpointID, SandboxKey string }
	var a struct {
		InterfaceName struct{ DstPrefix, DstName string }
	}
	if json.Unmarshal([]byte(request), &q) != nil || json.Unmarshal([]byte(answer), &a) != nil {
		return // a call without a body
	}
	switch op {
	case "NetworkDriver.Join":
		w.joined(q.EndpointID, path.Base(q.SandboxKey), a.InterfaceName.DstPrefix, a.InterfaceName.DstName)
	case "NetworkDriver.Leave":
		w.left(q.EndpointID)
	}
}

// joined writes that the device of a Join moves into the container, where it gets its exact name, or the first free number after its prefix.
func (w *writer) joined(endpoint, sandbox, prefix, name string) {
	for n := 0; name == "" || w.inside[device{sandbox, name}] != ""; n++ {
		name = fmt.Sprint(prefix, n)
	}
	w.inside[device{sandbox, name}] = endpoint
	w.line("! move %s %s", endpoint, name)
}

// left writes that the device of a Leave comes back. The container's namespace ends with its last device.
func (w *writer) left(endpoint string) {
	have := map[string]int{} // devices, by sandbox
	var sandbox string
	for d, e := range w.inside {
		if have[d.sandbox]++; e == endpoint {
			sandbox = d.sandbox
			delete(w.inside, d)
		}
	}
	if sandbox == "" {
		return
	}
	w.line("! home %s", endpoint)
	if have[sandbox] == 1 {
		w.line("! end %s", sandbox)
	}
}
