//go:build engine

package engine

import (
	"regexp"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

const whales = "../../../scripts/release-the-whales"

// TestWhales: scripts/release-the-whales starts its containers on macvlans and has each ping the next, says so when one does not start or
// does not answer, and removes its own containers only.
func TestWhales(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	t.Cleanup(func() { _, _ = Try(whales, "clean") })
	ours(t, "macvlan", "herd", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.64/26")
	ours(t, "macvlan", "small", "pt0", "10.21.0.0/30", "--ipam-opt", "gateway=none")
	ours(t, "macvlan", "mute", "pt0", "10.22.0.0/24", "-o", "macvlan_mode=private")
	Container(t, "bystander", "--net", "herd")

	out := Run(t, whales, "herd", "6")
	want := `(?s)whale-herd-6 +10\.20\.0\.\d+ +started in \d+\.\d\d s.*whale-herd-6 +-> 10\.20\.0\.\d+ +answers` +
		`.*\n6 of 6 containers started, the fastest in .*\n6 of 6 reach the next one\n.*\nrelease-the-whales: ok$`
	if !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("6 whales:\n%s\nwant a match of %s", out, want)
	}
	_, err := Try(whales, "herd", "2")
	wantError(t, err, "an earlier run's containers are on herd; remove them with: "+whales+" clean herd")

	for _, c := range []struct{ network, n, out, err string }{
		{"small", "3", "2 of 3 containers started", "pool 10.21.0.0/30: request address: all 2 addresses are in use"},
		{"mute", "2", "0 of 2 reach the next one", "release-the-whales: failed"},
		{"nowhere", "2", "", "release-the-whales: which network?"},
		{"mute", "1", "", "release-the-whales: 1 containers: must be 2 to 9999"},
	} {
		out, err := Try(whales, c.network, c.n)
		wantError(t, err, c.err)
		if !strings.Contains(out, c.out) {
			t.Errorf("%s: %s\nwant %q", c.network, out, c.out)
		}
	}

	// One of the five has not started.
	for _, c := range []struct{ args, want string }{
		{"herd", "6 containers removed"}, {"herd", "nothing to remove"}, {"", "5 containers removed"}, {"", "nothing to remove"},
	} {
		if out := Run(t, whales, append([]string{"clean"}, strings.Fields(c.args)...)...); out != c.want {
			t.Errorf("clean %s: %s, want %s", c.args, out, c.want)
		}
	}
	if left := Docker(t, "ps", "-a", "--format", "{{.Names}}"); left != "bystander" {
		t.Errorf("left are %s, want bystander", left)
	}
}

// wantError checks that an error contains a text.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want an error with %q", err, want)
	}
}
