package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPluginEnvironment compares plugin/config.json with the settings: each variable is a setting, with the default that the code has.
func TestPluginEnvironment(t *testing.T) {
	raw, err := os.ReadFile("../../plugin/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Interface       struct{ Socket string }
		PropagatedMount string
		Env             []struct {
			Name, Description, Value string
			Settable                 []string
		}
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	byName := map[string]setting{}
	for _, s := range settings {
		byName[s.name] = s
	}
	for _, e := range c.Env {
		s, ok := byName[e.Name]
		switch {
		case !ok:
			t.Errorf("%s is no setting: nothing would read it", e.Name)
		case e.Value != s.byDefault:
			t.Errorf("%s is %q there and %q in the code", e.Name, e.Value, s.byDefault)
		case len(e.Settable) != 1 || e.Settable[0] != "value":
			t.Errorf("%s cannot be set: settable is %q", e.Name, e.Settable)
		case !strings.Contains(e.Description, strings.TrimPrefix(s.allowed, "a duration ")):
			t.Errorf("%s: the description does not say that it is %s", e.Name, s.allowed)
		}
	}
	// The engine mounts these two; their paths cannot be set.
	if got, want := filepath.Join("/run/docker/plugins", c.Interface.Socket), byName["SOCKET"].byDefault; got != want {
		t.Errorf("the engine looks for %s, the code makes %s", got, want)
	}
	if got, want := c.PropagatedMount, byName["STATE_DIR"].byDefault; got != want {
		t.Errorf("the engine keeps %s, the code writes to %s", got, want)
	}
}

// TestServiceEnvironment compares the systemd unit with the settings.
func TestServiceEnvironment(t *testing.T) {
	f, err := os.Open("../../scripts/passthrough.service")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var pairs []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if pair, ok := strings.CutPrefix(lines.Text(), "Environment="); ok {
			pairs = append(pairs, pair)
		}
	}
	c, err := configFrom(nil, env(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	if c.stateDir != "/var/lib/passthrough" || c.socket != "/run/docker/plugins/passthrough.sock" {
		t.Errorf("state in %s, socket at %s", c.stateDir, c.socket)
	}
}
