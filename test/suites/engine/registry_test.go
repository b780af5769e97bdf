//go:build engine

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/registry"
)

// rolled is the plugin that comes from a registry, beside the one that the other tests use.
const rolled = "rolled:latest"

// TestRegistry: installed from a registry, upgraded while a container has a device, and put back when the new version does not
// start; the container keeps its device and its address, and the settings stay. Of the rollout only ssh is a stand-in.
func TestRegistry(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	host, end, err := registry.Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	repository := host + "/mellanox/passthrough"
	publish(t, repository, "v1", "/driver")
	publish(t, repository, "v2", "/driver")
	publish(t, repository, "v3", "/none")
	rollout(t, "--set", "LOG_LEVEL=debug", repository+":v1")
	t.Cleanup(func() { Docker(t, "plugin", "rm", "-f", rolled) })
	Network(t, "n1", "-d", rolled, "--ipam-driver", rolled, "--subnet", "10.20.0.0/24", "--gateway", "10.20.0.1",
		"-o", "netdevice=pt0", "-o", "mode=passthrough")
	Container(t, "c1", "--net", "n1")
	address := Address(t, "c1", "n1")

	rollout(t, repository+":v2")
	served := func() {
		t.Helper()
		got := Docker(t, "plugin", "inspect", "-f", "{{.Enabled}} {{.Config.Description}} {{.Settings.Env}}", rolled)
		if !strings.HasPrefix(got, "true (v2) ") || !strings.Contains(got, "LOG_LEVEL=debug") {
			t.Errorf("the plugin is %s, want v2 with its setting", got)
		}
		if now := Address(t, "c1", "n1"); now != address {
			t.Errorf("the address was %s, and is %s", address, now)
		}
		Reaches(t, "c1", "10.20.0.1", 5*time.Second)
		Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "n1", "lab", "true")
	}
	served()

	out, err := tryRollout(t, repository+":v3")
	if err == nil || !strings.Contains(err.Error(), "failed: here, put back") {
		t.Errorf("the rollout of a version that does not start: %v\n%s", err, out)
	}
	served()
	Docker(t, "restart", "-t1", "c1") // out of the hands of one version and into those of another
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
}

// publish puts a version of the plugin into a registry. Its root file system differs from that of the others, too: an engine has
// none of one content under two names.
func publish(t *testing.T, repository, version, entrypoint string) {
	t.Helper()
	made, reference := filepath.Join(t.TempDir(), "bundle"), repository+":"+version
	Sh(t, "cp -a "+bundle+" "+made)
	Sh(t, "echo "+version+" >"+made+"/rootfs/version")
	Run(t, "sed", "-i", `s|"description": ".*"|"description": "(`+version+`)"|; s|"entrypoint": .*|"entrypoint": ["`+entrypoint+`"],|`,
		made+"/config.json")
	Docker(t, "plugin", "create", reference, made)
	Docker(t, "plugin", "push", reference)
	Docker(t, "plugin", "rm", reference)
}

// rollout rolls the plugin out to this machine, and has to succeed.
func rollout(t *testing.T, args ...string) {
	t.Helper()
	if out, err := tryRollout(t, args...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// tryRollout rolls the plugin out to one node, "here", which is this machine: ssh is what runs a command there.
func tryRollout(t *testing.T, args ...string) (string, error) {
	t.Helper()
	nodes := t.TempDir()
	if err := os.Mkdir(filepath.Join(nodes, "here"), 0o700); err != nil {
		t.Fatal(err)
	}
	ssh, err := filepath.Abs("../../../scripts/testdata/ssh")
	if err != nil {
		t.Fatal(err)
	}
	line := append([]string{"SSH=sh " + ssh, "NODES=" + nodes, "../../../scripts/swarm-rollout", "--name", rolled}, args...)
	return Try("env", append(line, "here")...)
}
