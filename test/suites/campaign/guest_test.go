//go:build lab

package campaign

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
	"github.com/mellanox/passthrough/test/harness/registry"
)

// root is the path of the repository from this package's folder.
const root = "../../../"

// looker is the path of this test binary in the guest, where it reads the state of the guest or serves a registry.
const looker = "/disk/look"

// registryAt is the address of the registry while it runs.
const registryAt = "127.0.0.1:5000"

// lab runs scripts/lab, which must succeed.
func lab(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, root+"scripts/lab", args...)
}

// try runs a command line in the guest as root. It returns stdout, and an error with stderr.
func try(line string) (string, error) { return Try(root+"scripts/lab", "sh", line) }

// sh runs a command line in the guest, which must succeed.
func sh(t testing.TB, line string) string {
	t.Helper()
	return lab(t, "sh", line)
}

// docker runs docker in the guest, see try.
func docker(args ...string) (string, error) { return try(quoted("docker", args...)) }

// quoted returns a command line with quoted arguments for a shell.
func quoted(name string, args ...string) string {
	words := []string{name}
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// A view is the state of the guest at one moment.
type view struct {
	Ledger     *invariant.Ledger
	Host       *invariant.Host
	Engine     *invariant.Engine
	Containers []invariant.Container

	leaked int // number of leased addresses without an endpoint
}

// TestMain runs the tests, or, in the guest, the subcommand look, registry or xdp:DEVICE.
func TestMain(m *testing.M) {
	var inGuest func() error
	if len(os.Args) == 2 {
		inGuest = map[string]func() error{"look": writeLook, "registry": serveRegistry}[os.Args[1]]
		if device, ok := strings.CutPrefix(os.Args[1], "xdp:"); ok {
			inGuest = func() error { return attachXDP(device) }
		}
	}
	if inGuest == nil {
		os.Exit(m.Run())
	}
	if err := inGuest(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// writeLook writes the view of the machine that it runs on to stdout.
func writeLook() error {
	v, err := lookHere()
	if err != nil {
		return err
	}
	return gob.NewEncoder(os.Stdout).Encode(v)
}

// serveRegistry serves a registry until it is killed.
func serveRegistry() error {
	if _, _, err := registry.Serve(registryAt); err != nil {
		return err
	}
	select {}
}

// lookHere reads the view of the machine that it runs on. Changes during the read can look like violations, so the caller must repeat
// it in that case.
func lookHere() (*view, error) {
	v := new(view)
	var err error
	if v.Ledger, err = readLedger(); err != nil {
		return nil, err
	}
	if v.Host, err = invariant.ReadHost(); err != nil {
		return nil, err
	}
	if v.Engine, v.Containers, err = invariant.ReadDocker(Plugin); err != nil {
		return nil, err
	}
	return v, nil
}

// readLedger reads the ledger of the installed plugin.
func readLedger() (*invariant.Ledger, error) {
	id, err := Try("docker", "plugin", "inspect", "-f", "{{.Id}}", Plugin)
	if err != nil {
		return nil, err
	}
	return invariant.ReadLedger("/var/lib/docker/plugins/" + id + "/propagated-mount")
}

// look returns the view of the guest.
func look() (*view, error) {
	out, err := raw(looker + " look")
	if err != nil {
		return nil, err
	}
	v := new(view)
	if err := gob.NewDecoder(bytes.NewReader(out)).Decode(v); err != nil {
		return nil, fmt.Errorf("look: %w", err)
	}
	if v.Engine.Addresses == nil { // gob omits an empty list, and nil would mean that the engine was not read
		v.Engine.Addresses = []netip.Addr{}
	}
	return v, nil
}
