package ipamdrv_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplay sends recorded requests of engines and compares the answers. A line of testdata/engine is
//
//	METHOD [REQUEST] -> ANSWER | error TEXT
//
// or "restart". $NAME stands for the handle that the first answer with $NAME brought.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/engine/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			withFixture(t, func(b *fixture) { b.replay(name) })
		})
	}
}

// replay replays one file.
func (b *fixture) replay(name string) {
	file, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	handles := map[string]string{} // by $NAME
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#':
		case line == "restart":
			b.restart()
		default:
			if err := b.replayLine(line, handles); err != nil {
				b.Errorf("%s:%d: %v\n%s", name, n, err, line)
			}
		}
	}
	if err := lines.Err(); err != nil {
		b.Fatal(err)
	}
}

// replayLine makes one call.
func (b *fixture) replayLine(line string, handles map[string]string) error {
	request, want, ok := strings.Cut(line, " -> ")
	if !ok {
		return errors.New("no answer")
	}
	method, body, _ := strings.Cut(request, " ")
	for name, handle := range handles {
		body = strings.ReplaceAll(body, `"`+name+`"`, `"`+handle+`"`)
	}
	got, err := b.call(method, body)
	if text, ok := strings.CutPrefix(want, "error "); ok || err != nil {
		if err == nil || err.Error() != text {
			return fmt.Errorf("error %v, want %s", err, text)
		}
		return nil
	}
	wanted := map[string]any{}
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		return err
	}
	if name, ok := wanted["PoolID"].(string); ok {
		handles[name], _ = got["PoolID"].(string)
		wanted["PoolID"] = handles[name]
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		return fmt.Errorf("answer (-want +got):\n%s", diff)
	}
	return nil
}

// call makes one call with a body as it is sent by the engine. The answer is without its null fields.
func (b *fixture) call(method, body string) (map[string]any, error) {
	var answer any
	var err error
	switch method {
	case "GetCapabilities":
		answer, err = wire(b, body, b.d.GetCapabilities)
	case "GetDefaultAddressSpaces":
		answer, err = wire(b, body, b.d.GetDefaultAddressSpaces)
	case "RequestPool":
		answer, err = wire(b, body, b.d.RequestPool)
	case "ReleasePool":
		answer, err = wire(b, body, b.d.ReleasePool)
	case "RequestAddress":
		answer, err = wire(b, body, b.d.RequestAddress)
	case "ReleaseAddress":
		answer, err = wire(b, body, b.d.ReleaseAddress)
	default:
		err = fmt.Errorf("no method %q", method)
	}
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	got := map[string]any{}
	if err := json.Unmarshal(raw, &got); err != nil {
		return nil, err
	}
	maps.DeleteFunc(got, func(_ string, v any) bool { return v == nil })
	return got, nil
}

// wire decodes body for one method and calls it.
func wire[Request, Answer any](b *fixture, body string,
	method func(context.Context, *Request) (*Answer, error)) (any, error) {
	r := new(Request)
	if body != "" {
		if err := json.Unmarshal([]byte(body), r); err != nil {
			return nil, err
		}
	}
	return method(b.Context(), r)
}
