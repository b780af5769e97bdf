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

// root is the repository, seen from this package's folder.
const root = "../../../"

// looker is this program in the guest, where it looks, or is a registry.
const looker = "/disk/look"

// registryAt is where the registry is, while there is one.
const registryAt = "127.0.0.1:5000"

// lab runs scripts/lab, which must succeed.
func lab(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, root+"scripts/lab", args...)
}

// try runs a command line in the guest, as root, and returns what it wrote, and its error with what it wrote to stderr.
func try(line string) (string, error) { return Try(root+"scripts/lab", "sh", line) }

// sh runs a command line in the guest, which must succeed.
func sh(t testing.TB, line string) string {
	t.Helper()
	return lab(t, "sh", line)
}

// docker runs docker in the guest.
func docker(args ...string) (string, error) { return try(quoted("docker", args...)) }

// quoted is a command line for a shell.
func quoted(name string, args ...string) string {
	words := []string{name}
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// A view is what the guest looked like at one moment.
type view struct {
	Ledger     *invariant.Ledger
	Host       *invariant.Host
	Engine     *invariant.Engine
	Containers []invariant.Container

	leaked int // addresses that are leased to nobody
}

// TestMain makes the test binary the one that looks, or a registry, when it is told so in the guest.
func TestMain(m *testing.M) {
	var inGuest func() error
	if len(os.Args) == 2 {
		inGuest = map[string]func() error{"look": writeLook, "registry": serveRegistry}[os.Args[1]]
	}
	if inGuest == nil {
		os.Exit(m.Run())
	}
	if err := inGuest(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// writeLook looks at the machine that it runs on, and writes what it sees.
func writeLook() error {
	v, err := lookHere()
	if err != nil {
		return err
	}
	return gob.NewEncoder(os.Stdout).Encode(v)
}

// serveRegistry is a registry until it is killed.
func serveRegistry() error {
	if _, _, err := registry.Serve(registryAt); err != nil {
		return err
	}
	select {}
}

// lookHere looks at the machine that it runs on. What changes meanwhile looks as if it did not agree: then it is to be looked at
// again.
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

// readLedger reads the ledger of the plugin that is installed.
func readLedger() (*invariant.Ledger, error) {
	id, err := Try("docker", "plugin", "inspect", "-f", "{{.Id}}", Plugin)
	if err != nil {
		return nil, err
	}
	return invariant.ReadLedger("/var/lib/docker/plugins/" + id + "/propagated-mount")
}

// look looks at the guest.
func look() (*view, error) {
	out, err := raw(looker + " look")
	if err != nil {
		return nil, err
	}
	v := new(view)
	if err := gob.NewDecoder(bytes.NewReader(out)).Decode(v); err != nil {
		return nil, fmt.Errorf("look: %w", err)
	}
	if v.Engine.Addresses == nil { // gob leaves out an empty list, and nil stands for an engine that was not asked
		v.Engine.Addresses = []netip.Addr{}
	}
	return v, nil
}
