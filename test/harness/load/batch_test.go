package load

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestFailed: failures that the engine ignores are counted, and expected refusals are not.
func TestFailed(t *testing.T) {
	lines := []dockertest.Event{
		{Msg: "device"},
		{Msg: "call", Op: "NetworkDriver.Join", Outcome: "ok"},
		{Msg: "call", Op: "NetworkDriver.CreateEndpoint", Outcome: "error", Err: "all 7 vfs are in use"},
		{Msg: "call", Op: "NetworkDriver.DeleteEndpoint", Outcome: "deadline", Err: "took longer"},
		{Msg: "call", Op: "NetworkDriver.DeleteEndpoint", Outcome: "deadline", Err: "took longer"},
	}
	const late, refused = "NetworkDriver.DeleteEndpoint: deadline: took longer", "NetworkDriver.CreateEndpoint: error: all 7 vfs are in use"
	if diff := cmp.Diff(map[string]int{late: 2}, Batch{TooMany: 1, Refusal: "all 7 vfs are in use"}.failed(lines)); diff != "" {
		t.Errorf("with TooMany 1: %s", diff)
	}
	if diff := cmp.Diff(map[string]int{late: 2, refused: 1}, Batch{}.failed(lines)); diff != "" {
		t.Errorf("with TooMany 0: %s", diff)
	}
}
