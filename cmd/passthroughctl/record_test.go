package main

import (
	"strings"
	"testing"
)

// TestWithoutPlugin: a host that has the plugin's socket has the plugin, also if it does not answer: it may have lent VFs.
func TestWithoutPlugin(t *testing.T) {
	c := &ctl{socket: t.TempDir() + "/passthrough.sock"}
	if _, err := c.hold(nil, true); err == nil || !strings.Contains(err.Error(), "--without-plugin: the plugin is here") {
		t.Errorf("with a socket: %v", err)
	}
	if _, err := c.hold(nil, false); err == nil || !strings.HasPrefix(err.Error(), "which VFs are free? ") {
		t.Errorf("a plugin that does not answer: %v", err)
	}
}
