//go:build engine

package engine

import (
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

const cdiPage = "../../../docs/cdi.md"

// TestCDI runs the commands of docs/cdi.md: an engine takes the plugin's spec, also after the plugin was killed, and the specs of others stay.
// There is no device with files in /dev here: what a container gets is the environment.
func TestCDI(t *testing.T) {
	if !sendsNames(t) {
		t.Skip("the plugin does the same with each engine; those before 28.2 have CDI behind a feature flag, those before 25 none")
	}
	veth(t, "enp1s0", "10.9.0.1/24")
	Sh(t, "ip link set enp1s0 up")
	t.Cleanup(func() {
		_, _ = Try("docker", "network", "rm", "fabric-a")
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "cdi.source=/proc/irq"}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
		Sh(t, "rm -rf /etc/cdi")
	})
	names := docs.Commands(t, cdiPage, "Names")
	_, err := Try("sh", "-c", strings.ReplaceAll(names[0], "passthrough:latest", Plugin))
	if err == nil || !strings.Contains(err.Error(), "option cdi: the plugin has no folder for CDI specs") {
		t.Errorf("without a folder: %v", err)
	}
	for _, line := range docs.Commands(t, cdiPage, "The folder") {
		Sh(t, strings.ReplaceAll(line, "passthrough:latest", Plugin))
	}
	const foreign = `{"cdiVersion": "0.6.0", "kind": "example.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["GPU=0"]}}]}`
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile("/etc/cdi/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("passthrough-gpu.json", foreign)

	var out string
	for _, line := range names {
		out = Sh(t, strings.NewReplacer("passthrough:latest", Plugin, "busybox", "lab").Replace(line))
	}
	const variable = "NETDEVICE_MELLANOX_COM_FABRIC_A=enp1s0"
	if !strings.Contains(out, variable) {
		t.Errorf("the container has no %s:\n%s", variable, out)
	}
	WantLine(t, ctl(t, "doctor"), "ok", "cdi", "specs are in /etc/cdi, where the engine looks")
	spec, err := os.ReadFile("/etc/cdi/passthrough-fabric-a.json")
	if err != nil {
		t.Fatal(err)
	}
	if mode := Run(t, "stat", "-c", "%a", "/etc/cdi/passthrough-fabric-a.json"); mode != "644" {
		t.Errorf("the spec has mode %s", mode)
	}
	refusedIn(t, "unresolvable CDI devices mellanox.com/fabric-a=vf0", "run", "--rm", "--net", "fabric-a", "--device", "mellanox.com/fabric-a=vf0",
		"lab", "true")

	write("passthrough-gone.json", strings.ReplaceAll(string(spec), "fabric-a", "gone"))
	Sh(t, "rm /etc/cdi/passthrough-fabric-a.json; kill -9 $(pidof driver)")
	Within(t, 20*time.Second, func() string {
		files := Sh(t, "cd /etc/cdi && echo *")
		if files != "passthrough-fabric-a.json passthrough-gpu.json" {
			return "after the plugin was killed the folder has " + files
		}
		return ""
	})
	out = Docker(t, "run", "--rm", "--net", "fabric-a", "--device", "mellanox.com/fabric-a=nic", "--device", "example.com/gpu=0", "lab", "env")
	if !strings.Contains(out, variable) || !strings.Contains(out, "GPU=0") {
		t.Errorf("after the plugin was killed a container has\n%s", out)
	}
	Docker(t, "network", "rm", "fabric-a")
	railWithCDI(t, "enp1s0")
	if files := Sh(t, "cd /etc/cdi && grep -H . *"); files != "passthrough-gpu.json:"+foreign {
		t.Errorf("after the end of the network the folder has %s", files)
	}
}
