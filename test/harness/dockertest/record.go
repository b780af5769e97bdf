package dockertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recording returns the folder to record in; "" for none. It must exist under the same path where the engine runs, as the folders of this
// repository do.
func recording() string { return os.Getenv("RECORD") }

// Note adds to a recording what a test does to the machine, in a line such as "! bridge br0". The calls from now on belong to this test;
// for that alone the line may be empty.
func Note(t testing.TB, line string) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	if err := note(test, line); err != nil {
		t.Fatal(err)
	}
}

// note puts a line into the engine's log, if RECORD names a folder: that has the times of everything else.
func note(test, line string) error {
	if recording() == "" {
		return nil
	}
	text, err := json.Marshal(Event{TS: time.Now().UTC(), Msg: noted, Test: test, Line: strings.ReplaceAll(line, "\n", " ")})
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if _, err := Try("engine", "note", "msg="+strconv.Quote(string(text))); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Record writes the calls of the engine in each test and the plugin's answers, if RECORD names a folder: a
// file per test in a folder per release, in the form of the transcripts in cmd/driver/testdata.
func Record() error {
	if recording() == "" {
		return nil
	}
	version, err := Try("docker", "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	log, err := Log()
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	texts := transcripts(log)
	if len(texts) == 0 {
		return fmt.Errorf("record: the log of engine %s has no call of the plugin", version)
	}
	if err := write(version, texts); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// write writes the transcripts of an engine, by test.
func write(version string, texts map[string]string) error {
	dir := filepath.Join(recording(), release(version))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for test, text := range texts {
		text = "# Engine " + version + " in " + test + ", as it was recorded.\n" + text
		if err := os.WriteFile(filepath.Join(dir, test+".txt"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// release is the first two numbers of a version.
func release(version string) string {
	numbers := strings.SplitN(version, ".", 3)
	return strings.Join(numbers[:min(2, len(numbers))], ".")
}
