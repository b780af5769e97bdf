package dockertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// recording is the folder to record in; "" for none. It has to be there beside the engine too: one of this repository is.
func recording() string { return os.Getenv("RECORD") }

// Record writes down what the engine has said to the plugin so far and what it was answered, if RECORD names a folder, in
// the form of the transcripts in cmd/driver/testdata/engine.
func Record() error {
	if recording() == "" {
		return nil
	}
	release, err := Try("docker", "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	log, err := Log()
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	text := transcriptOf(log)
	if text == "" {
		return fmt.Errorf("record: the log of engine %s has nothing that the plugin was told", release)
	}
	if err := os.MkdirAll(recording(), 0o755); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	text = "# What engine " + release + " said in the tests.\n\n" + text
	return os.WriteFile(filepath.Join(recording(), release+".txt"), []byte(text), 0o644)
}

// transcriptOf makes a transcript of the plugin's log.
func transcriptOf(log []Logged) string {
	var b strings.Builder
	ids := idNames{names: map[string]string{}, count: map[string]int{}}
	for _, l := range log {
		if l.Msg != "said" {
			continue
		}
		b.WriteString(strings.TrimSpace("> "+l.Op+" "+ids.shorten(l.Request)) + "\n")
		b.WriteString("< " + ids.shorten(l.answer()) + "\n")
	}
	return b.String()
}

// answer is the status, unless it is 200, and what was sent.
func (l Logged) answer() string {
	if l.Err == "" {
		return l.Answer
	}
	text, _ := json.Marshal(l.Err) // a string
	return fmt.Sprintf(`%d {"Err":%s}`, l.Status, text)
}

// idKinds are where IDs stand, and with what the names begin that they get.
var idKinds = []struct {
	at     *regexp.Regexp
	letter string
}{
	{regexp.MustCompile(`"NetworkID":"([0-9a-f]{64})"`), "n"},
	{regexp.MustCompile(`"NetworkID":"([0-9a-z]{25})"`), "w"},
	{regexp.MustCompile(`"EndpointID":"([0-9a-f]{64})"`), "e"},
	{regexp.MustCompile(`/netns/([0-9a-f]{12})"`), "s"},
	{regexp.MustCompile(`"PoolID":"([^"]+)"`), "p"},
	{regexp.MustCompile(`"MacAddress":"([0-9a-f:]{17})"`), "m"},
}

// idNames gives names to IDs in the order in which they are met.
type idNames struct {
	names map[string]string // by ID
	count map[string]int    // of names, by letter
}

// shorten puts names in the place of IDs.
func (n idNames) shorten(text string) string {
	for _, k := range idKinds {
		for _, m := range k.at.FindAllStringSubmatch(text, -1) {
			if n.names[m[1]] == "" {
				n.count[k.letter]++
				n.names[m[1]] = fmt.Sprintf("$%s%d", k.letter, n.count[k.letter])
			}
		}
	}
	for id, name := range n.names {
		text = strings.ReplaceAll(text, id, name)
	}
	return text
}
