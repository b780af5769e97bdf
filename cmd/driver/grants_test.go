package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/test/harness/docs"
)

// grants is what plugin/config.json requests of an engine.
type grants struct {
	Network struct{ Type string }
	Linux   struct {
		Capabilities    []string
		AllowAllDevices bool
		Devices         []any
	}
	Mounts           []grantedMount
	PidHost, IpcHost bool
	PropagatedMount  string
}

// grantedMount is a folder of the host's.
type grantedMount struct {
	Source, Destination, Type string
	Options, Settable         []string
}

// TestGrants: plugin/config.json requests what docs/security.md says and no more; so do the service and the container. Mounts are slaves,
// so that a mount in the plugin is not propagated to the host.
func TestGrants(t *testing.T) {
	raw, err := os.ReadFile("../../plugin/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var got, want grants
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	options := []string{"rbind", "rw", "rslave"}
	want.Network.Type, want.PropagatedMount = "host", "/data"
	want.Linux.Capabilities, want.Linux.Devices = []string{"CAP_" + strings.ToUpper(strings.TrimPrefix(granted.String(), "cap_"))}, []any{}
	want.Mounts = []grantedMount{{"/sys", "/sys", "bind", options, []string{}}, {"/proc/irq", "/host/irq", "bind", options, []string{}},
		{"/proc/irq", hostFolder, "bind", append(options, "nosuid", "nodev", "noexec"), []string{"source"}}, // until an administrator sets it
		{"/proc/irq", cdiFolder, "bind", append(options, "nosuid", "nodev", "noexec"), []string{"source"}},
		{"/proc/irq", netnsFolder, "bind", []string{"rbind", "ro", "rslave", "nosuid", "nodev", "noexec"}, []string{"source"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plugin/config.json:\n%s", diff)
	}
	service, err := os.ReadFile("../../scripts/passthrough.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapabilityBoundingSet=CAP_NET_ADMIN", "AmbientCapabilities=", "NoNewPrivileges=yes", "StateDirectoryMode=0700",
		"UMask=0077", "ProtectSystem=strict", "PrivateDevices=yes"} {
		if !strings.Contains(string(service), "\n"+line+"\n") {
			t.Errorf("scripts/passthrough.service has no line %s", line)
		}
	}
	commands := docs.Commands(t, "../../docs/other-ways.md", "As a container")
	run := commands[len(commands)-1]
	// Where the engine has AppArmor its profile docker-default says: deny /sys/[^f]*/** wklx.
	for _, option := range []string{"--net=host", "--cap-drop=ALL", "--cap-add=NET_ADMIN", "--security-opt apparmor=unconfined", "-v /sys:/sys",
		"-v /proc/irq:/host/irq"} {
		if !strings.Contains(run, " "+option+" ") {
			t.Errorf("docs/other-ways.md starts a container without %s: %s", option, run)
		}
	}
}
