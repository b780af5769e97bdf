// Package plugin holds no code: its tests review config.json, which says what the engine grants the plugin, and the
// bundle that rootfs-build makes.
package plugin

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// config is what matters of a managed plugin's config.json (application/vnd.docker.plugin.v1+json).
type config struct {
	Description, Documentation string
	Entrypoint                 []string
	Interface                  struct {
		Types  []string
		Socket string
	}
	Network struct{ Type string }
	Linux   struct {
		Capabilities    []string
		AllowAllDevices bool
		Devices         []any
	}
	Mounts []struct {
		Name, Description, Source, Destination, Type string
		Options                                      []string
	}
	PropagatedMount  string
	PidHost, IpcHost bool
}

// read decodes a config.json.
func read(t *testing.T, name string) config {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGrants(t *testing.T) {
	c := read(t, "config.json")
	for _, same := range []struct {
		what      string
		got, want any
	}{
		{"interface.types", c.Interface.Types, []string{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"}},
		{"interface.socket", c.Interface.Socket, "passthrough.sock"},
		{"network.type", c.Network.Type, "host"}, // the engine moves our devices by name from the host's namespace
		{"linux.capabilities", c.Linux.Capabilities, []string{"CAP_NET_ADMIN"}},
		{"linux.allowAllDevices", c.Linux.AllowAllDevices, false},
		{"linux.devices", len(c.Linux.Devices), 0},
		{"pidhost", c.PidHost, false},
		{"ipchost", c.IpcHost, false},
		{"propagatedMount", c.PropagatedMount, "/data"}, // survives disable, upgrade and the engine's restarts
	} {
		if diff := cmp.Diff(same.want, same.got); diff != "" {
			t.Errorf("%s: %s", same.what, diff)
		}
	}
}

// TestMounts: with a propagated mount the engine makes the plugin's root shared, and the masks that runc puts over parts
// of /sys and /proc would show up on the host through every bind mount that is not a slave. A source that does not exist
// at boot keeps the plugin from starting, and the engine makes few of its own directories that early.
func TestMounts(t *testing.T) {
	c := read(t, "config.json")
	var mounts []string
	for _, m := range c.Mounts {
		mounts = append(mounts, m.Source+" at "+m.Destination)
		if m.Type != "bind" || !slices.Contains(m.Options, "rslave") || !slices.Contains(m.Options, "rbind") {
			t.Errorf("mount %s: type %s with %q, want a slave bind mount", m.Name, m.Type, m.Options)
		}
		if m.Name == "" || m.Description == "" {
			t.Errorf("mount of %s: the user who grants it should read what for", m.Source)
		}
	}
	// runc makes a container's own /proc/irq read-only, and one that is mounted there would be, too.
	if diff := cmp.Diff([]string{"/sys at /sys", "/proc/irq at /host/irq", "/proc/irq at /host/state", "/proc/irq at /host/cdi",
		"/proc/irq at /host/netns"}, mounts); diff != "" {
		t.Errorf("mounts: %s", diff)
	}
}

// build makes a bundle of a stand-in for the binary and returns where.
func build(t *testing.T, binary []byte, version string) (bundle, output string, err error) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "binary")
	if err := os.WriteFile(name, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	bundle = filepath.Join(dir, "bundle")
	cmd := exec.Command("rootfs-build/build", name, version, bundle)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	out, err := cmd.CombinedOutput()
	return bundle, string(out), err
}

// list is every file of a tree with its mode, time and, of files, contents.
func list(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		b.WriteString(fi.Mode().String() + " " + fi.ModTime().UTC().Format("2006-01-02T15:04:05.000") + " " + rel + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBundle(t *testing.T) {
	bundle, out, err := build(t, []byte("binary"), "v1.2.3-4-gabc")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const when = " 2023-11-14T22:13:20.000 "
	want := strings.Join([]string{
		"drwxr-xr-x" + when + ".",
		"-rw-r--r--" + when + "config.json",
		"drwxr-xr-x" + when + "rootfs",
		"drwxr-xr-x" + when + "rootfs/data",
		"drwxr-xr-x" + when + "rootfs/dev",
		"-rwxr-xr-x" + when + "rootfs/driver",
		"drwxr-xr-x" + when + "rootfs/etc",
		"-rw-r--r--" + when + "rootfs/etc/hosts",
		"-rw-r--r--" + when + "rootfs/etc/resolv.conf",
		"drwxr-xr-x" + when + "rootfs/host",
		"drwxr-xr-x" + when + "rootfs/host/irq",
		"drwxr-xr-x" + when + "rootfs/proc",
		"drwxr-xr-x" + when + "rootfs/run",
		"drwxr-xr-x" + when + "rootfs/run/docker",
		"drwxr-xr-x" + when + "rootfs/run/docker/plugins",
		"drwxr-xr-x" + when + "rootfs/sys",
		"dtrwxrwxrwx" + when + "rootfs/tmp",
		"",
	}, "\n")
	if diff := cmp.Diff(want, list(t, bundle)); diff != "" {
		t.Error(diff)
	}
	c := read(t, filepath.Join(bundle, "config.json"))
	if !strings.HasSuffix(c.Description, "(v1.2.3-4-gabc)") {
		t.Errorf("description %q does not end with the version", c.Description)
	}
	if _, err := os.Stat(filepath.Join(bundle, "rootfs", c.Entrypoint[0])); err != nil {
		t.Errorf("the entrypoint is not in the rootfs: %v", err)
	}
	// What the engine mounts there needs a place to go.
	for _, place := range []string{c.PropagatedMount, c.Mounts[0].Destination, c.Mounts[1].Destination, "/run/docker/plugins"} {
		if _, err := os.Stat(filepath.Join(bundle, "rootfs", place)); err != nil {
			t.Error(err)
		}
	}
}

func TestBundleRefusals(t *testing.T) {
	bundle, out, err := build(t, make([]byte, 22<<20), "v1")
	if err == nil || !strings.HasSuffix(out, "at most 22 MiB are allowed\n") {
		t.Errorf("a bundle of more than 22 MiB: %v, %q", err, out)
	}
	if _, err := os.Stat(bundle); !os.IsNotExist(err) {
		t.Errorf("a refused bundle is there: %v", err)
	}
	_, out, err = build(t, nil, `v1/"`)
	if want := "version \"v1/\"\": must be letters, digits, dots, plus, minus, underscore\n"; err == nil || out != want {
		t.Errorf("got %v, %q, want %q", err, out, want)
	}
}
