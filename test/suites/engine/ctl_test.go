//go:build engine

package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/admin"
	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// ctl runs passthroughctl.
func ctl(t *testing.T, args ...string) string {
	t.Helper()
	return Run(t, "../../../bin/passthroughctl", args...)
}

// TestPassthroughctl: the operator's tool finds the plugin by itself, and says by name which container has what.
func TestPassthroughctl(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "lan", "pt0", "10.20.0.0/28", "--gateway", "10.20.0.1")
	Container(t, "web1", "--net", "lan")
	Container(t, "web2", "--net", "lan")
	addr, mac := Address(t, "web1", "lan"), MAC(t, "web1", "lan")

	for _, text := range []string{addr, strings.ToUpper(mac), "web1"} {
		out := ctl(t, "who", text)
		if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "web1 ") ||
			!strings.Contains(lines[1], " lan ") || !strings.Contains(lines[1], mac) || !strings.Contains(lines[1], addr+"/28") {
			t.Errorf("who %s:\n%s", text, out)
		}
	}
	if _, err := Try("../../../bin/passthroughctl", "who", "10.99.0.1"); err == nil || !strings.Contains(err.Error(), `nothing on this machine has "10.99.0.1"`) {
		t.Errorf("who 10.99.0.1: %v", err)
	}
	WantLine(t, ctl(t, "status"), "lan", "macvlan", "pt0", "2", "10.20.0.0/28", "web1,web2")
	WantLine(t, ctl(t, "pools"), "10.20.0.0/28", "10.20.0.1", "3/14", "lan")
	WantLine(t, ctl(t, "leases", "lan"), "10.20.0.1", "gateway")
	WantLine(t, ctl(t, "who", "10.20.0.1"), "10.20.0.1", "10.20.0.0/28", "gateway")
	WantLine(t, ctl(t, "leases", "10.20.0.0/28"), addr, "chosen", "web1", mac)

	var rows []struct {
		Address, Kind, Container string
	}
	if err := json.Unmarshal([]byte(ctl(t, "leases", "--format", "json")), &rows); err != nil || len(rows) != 3 {
		t.Errorf("leases as JSON: %+v, %v", rows, err)
	}
	if out := ctl(t, "who", "web2", "--format", "{{.Container}} {{.MAC}}"); strings.TrimSpace(out) != "web2 "+MAC(t, "web2", "lan") {
		t.Errorf("who by a template: %q", out)
	}

	out := ctl(t, "explain", "web1")
	WantLine(t, out, "container", "web1, running")
	WantLine(t, out, "network", "lan", "mode=macvlan netdevice=pt0")
	WantLine(t, out, "address", addr+"/28 of pool", "chosen, leased")
	if strings.Contains(out, "problem") {
		t.Errorf("explain web1:\n%s", out)
	}

	out = ctl(t, "doctor") // without a NIC that can have VFs it warns, and its exit status is 0
	WantLine(t, out, "ok", "engine", "version ")
	WantLine(t, out, "ok", "plugin", "answers at")
	WantLine(t, out, "ok", "state", "1 networks, 2 devices in use, 1 pools, nothing is wrong")

	WantLine(t, ctl(t, "version"), "plugin ", ", commit ", " of 20")
	Sh(t, "engine log | grep 'listening version=.* commit=.* date=20'")

	if was, now := ctl(t, "loglevel"), ctl(t, "loglevel", "debug"); was != "info" || now != "debug" || ctl(t, "loglevel", was) != was {
		t.Errorf("log level %s, then %s", was, now)
	}

	Docker(t, "rm", "-f", "web1")
	Within(t, 10*time.Second, func() string {
		if out := ctl(t, "status"); !strings.Contains(out, " web2") || strings.Contains(out, "web1") {
			return "status after docker rm:\n" + out
		}
		return ""
	})
}

// TestQuestions: each command that docs/passthroughctl.md has for a question answers it: with the names of the page replaced by those of this
// machine it succeeds and prints something. Those that need a NIC the lab runs.
func TestQuestions(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "customer1", "pt0", "10.20.0.0/28", "--gateway", "10.20.0.1")
	Container(t, "web1", "--net", "customer1")
	page, err := os.ReadFile("../../../docs/passthroughctl.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| question | command |")
	table, _, _ = strings.Cut(table, "\n\n")
	names := strings.NewReplacer("10.1.0.7", Address(t, "web1", "customer1"), "02:bf:90:96:a1:27", MAC(t, "web1", "customer1"),
		"docker network create ...", "docker network create -d "+Plugin+" -o netdevice=pt0 -o mode=macvlan x", "support-bundle", "support-bundle "+filepath.Join(t.TempDir(), "bundle"), "backup", "backup "+filepath.Join(t.TempDir(), "records"))
	ran := 0
	for _, m := range regexp.MustCompile("`(?:passthroughctl )?([a-z-]+(?: [^`]*)?)`").FindAllStringSubmatch(table, -1) {
		args := names.Replace(m[1])
		if strings.Contains(args, "enp1s0") || strings.Contains(args, "0000:") || args == "nodes" || strings.HasPrefix(m[1], "docker ") ||
			args == "macvlan" || args == "events --follow" { // which does not end: TestEvents
			continue
		}
		ran++
		if out, err := Try("../../../bin/passthroughctl", strings.Fields(args)...); err != nil || out == "" && args != "vfs" && args != "nics" {
			t.Errorf("passthroughctl %s: %v, %s", args, err, out)
		}
	}
	if ran < 12 {
		t.Errorf("%d commands were run: the test looks at the wrong thing", ran)
	}
	ctl(t, "loglevel", "info")
}

// TestPluginLog: in the engine's log a container has one line when it is attached and one when its device is free again, at level info; a call
// that is refused is at level error there, and a warning by what the plugin says.
func TestPluginLog(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "lan", "pt0", "10.20.0.0/28", "--gateway", "10.20.0.1")
	Container(t, "web1", "--net", "lan")
	addr, mac := Address(t, "web1", "lan"), MAC(t, "web1", "lan")
	Docker(t, "rm", "-f", "web1")
	if _, err := Try("docker", "run", "--rm", "--net", "name=lan,driver-opt=vlan=7", "lab:latest", "true"); err == nil {
		t.Error("a macvlan takes the option vlan for one container")
	}
	Within(t, 60*time.Second, func() string {
		log := Sh(t, "engine log | grep plugin=")
		for _, want := range []string{
			`level=info msg="[^"]* info attached .*mac=` + mac + ` addresses=` + addr + `/28 claim=\S+ setup=\S+ join=\S+ event=attach" plugin=[0-9a-f]+\n`,
			`level=info msg="[^"]* info released device=[^"]+" plugin=`,
			`level=error msg="[^"]* warn call op=NetworkDriver.CreateEndpoint [^"]*outcome=error err='option vlan`,
		} {
			if !regexp.MustCompile(want).MatchString(log + "\n") {
				return "the engine's log has no line " + want + ":\n" + log
			}
		}
		return ""
	})
}

// TestFree: the operator's tool does not free the device of a container that the engine has. One whose endpoint the engine does not know it
// frees, after a question if it was given away a moment ago.
func TestFree(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "lan", "pt0", "10.20.0.0/28", "--gateway", "10.20.0.1")
	Container(t, "web1", "--net", "lan")
	device := ctl(t, "who", "web1", "-f", "{{.Device}}")
	for _, args := range []string{"free", "free --force"} {
		_, err := Try("sh", "-c", fmt.Sprintf("echo yes | ../../../bin/passthroughctl %s '%s'", args, device))
		if err == nil || !strings.Contains(err.Error(), device+": container web1 has it and is running; docker stop web1 ends that") {
			t.Errorf("%s %s: %v", args, device, err)
		}
	}

	socket, err := admin.FindSocket()
	if err != nil {
		t.Fatal(err)
	}
	lost := strings.Repeat("1057", 16)
	err = admin.NewClient(socket).Call(t.Context(), "NetworkDriver.CreateEndpoint", map[string]any{"NetworkID": Docker(t, "network", "inspect", "-f", "{{.ID}}", "lan"), "EndpointID": lost,
		"Interface": map[string]string{"Address": "10.20.0.9/28"}, "Options": map[string]any{}}, &struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Try("../../../bin/passthroughctl", "free", device)
	if err == nil || !strings.Contains(err.Error(), `2 devices are called "`+device+`"; passthroughctl who CONTAINER -f '{{.ID}}' prints the ID of one`) {
		t.Errorf("free %s, which are two: %v", device, err)
	}
	device = ctl(t, "who", lost, "-f", "{{.ID}}")
	_, err = Try("../../../bin/passthroughctl", "free", device)
	if err == nil || !strings.Contains(err.Error(), "the engine may still be at work on its container; wait a minute, or use --force") {
		t.Errorf("free %s: %v", device, err)
	}
	for _, answer := range []string{"no", "yes"} {
		_, err := Try("sh", "-c", fmt.Sprintf("echo %s | ../../../bin/passthroughctl free --force '%s'", answer, device))
		if refused := err != nil && strings.Contains(err.Error(), "not confirmed; nothing was changed"); refused != (answer == "no") || err != nil != refused {
			t.Errorf("free --force %s, and %s: %v", device, answer, err)
		}
	}
	if _, err := Try("../../../bin/passthroughctl", "who", lost); err == nil {
		t.Errorf("%s is not free", device)
	}
	WantLine(t, ctl(t, "status"), "lan", "web1")
}

// TestEvents: the operator's tool prints a line for each decision of the plugin, by name, as they come, across a restart of the plugin.
func TestEvents(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "lan", "pt0", "10.20.0.0/28", "--gateway", "10.20.0.1")
	followed := filepath.Join(t.TempDir(), "events")
	out, err := os.Create(followed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	follow := exec.CommandContext(t.Context(), "../../../bin/passthroughctl", "events", "--follow")
	follow.Stdout = out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = follow.Process.Signal(syscall.SIGTERM)
		if err := follow.Wait(); err != nil && !strings.Contains(err.Error(), "killed") { // its context has ended
			t.Errorf("passthroughctl events --follow: %v", err)
		}
	})
	shows := func(line string) {
		t.Helper()
		Within(t, 60*time.Second, func() string {
			if text := Sh(t, "cat "+followed); !regexp.MustCompile(`(?m)` + line).MatchString(text) {
				return "no line " + line + " in:\n" + text
			}
			return ""
		})
	}
	Container(t, "web1", "--net", "lan")
	addr := Address(t, "web1", "lan")
	shows(`^\d\d:\d\d:\d\d attach +\S.* of lan for web1 ` + addr + `/28$`)
	Docker(t, "rm", "-f", "web1")
	shows(`^\d\d:\d\d:\d\d release +\S.* of lan`)
	Docker(t, "plugin", "disable", "-f", Plugin)
	Docker(t, "plugin", "enable", Plugin)
	Container(t, "web2", "--net", "lan")
	shows(`^\d\d:\d\d:\d\d attach +\S.* of lan for web2 ` + Address(t, "web2", "lan") + `/28$`)
	_, _ = Try("docker", "run", "--rm", "--net", "name=lan,driver-opt=vlan=7", "lab:latest", "true")
	shows(`^\d\d:\d\d:\d\d warning +call: of lan .*option vlan`)

	var all []struct {
		Seq    int
		Kind   string
		Fields map[string]string
	}
	if err := json.Unmarshal([]byte(ctl(t, "events", "-f", "json")), &all); err != nil || len(all) < 2 || all[0].Seq != 1 {
		t.Errorf("events as JSON: %+v, %v", all, err)
	}
}

// TestSupportBundle: the bundle has what the commands print, and no password of a setting, whether the plugin can use it or not.
func TestSupportBundle(t *testing.T) {
	const secret = "hunter2"
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, "secretive", "STORE=etcd://admin:"+secret+"@127.0.0.1:1?password="+secret)
	process(t, "waiting", "STORE=etcd://127.0.0.1:1?insecure=yes&user=admin&password-file="+password)
	for _, name := range []string{"secretive", "waiting", ""} {
		file := filepath.Join(t.TempDir(), "bundle.tar.gz")
		args := []string{"support-bundle", file}
		if name != "" {
			args = append(args, "--socket", "/run/docker/plugins/"+name+".sock")
		} else {
			args = append(args, "--socket", managedSocket(t))
		}
		if got := ctl(t, args...); got != file {
			t.Errorf("support-bundle prints %q", got)
		}
		Sh(t, "cd "+filepath.Dir(file)+" && tar xzf bundle.tar.gz")
		all := Sh(t, "cd "+filepath.Dir(file)+"/passthrough-support && grep -r . .")
		for _, want := range []string{"version.txt:passthroughctl ", `settings.json:.*"name": "STORE"`, "nics.json:", "vfs.json:", "pools.json:", "leases.json:",
			"events.json:", "doctor.txt:ok +engine", "records.json:", "counters.json:", "status.txt:", "loglevel.txt:info"} {
			if name == "secretive" && want == "loglevel.txt:info" {
				want = `settings.json: +"value": "etcd://\*\*\*@127.0.0.1:1\?password=\*\*\*"`
			} else if name == "waiting" && strings.HasPrefix(want, "loglevel") {
				want = `settings.json: +"value": "etcd://127.0.0.1:1\?insecure=yes&user=admin&password-file=`
			}
			if !regexp.MustCompile(want).MatchString(strings.ReplaceAll(all, `\u0026`, "&")) {
				t.Errorf("%s: the bundle has no %s:\n%s", name, want, all)
			}
		}
		if strings.Contains(all, secret) {
			t.Errorf("%s: the bundle has the password:\n%s", name, all)
		}
		if _, err := Try("../../../bin/passthroughctl", args...); err == nil || !strings.Contains(err.Error(), "file exists") {
			t.Errorf("a bundle in a file that exists: %v", err)
		}
	}
}

// managedSocket returns the socket of the managed plugin.
func managedSocket(t *testing.T) string {
	t.Helper()
	return "/run/docker/plugins/" + Docker(t, "plugin", "inspect", "-f", "{{.ID}}", Plugin) + "/passthrough.sock"
}
