package load

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// agree waits until ledger, kernel and engine agree and the given number of containers run.
func agree(t *testing.T, before *invariant.Host, running int) {
	t.Helper()
	dockertest.Within(t, time.Minute, func() string {
		ledger, err := invariant.ReadLedger(stateDir(t))
		if err != nil {
			return err.Error()
		}
		host, err := invariant.ReadHost()
		if err != nil {
			return err.Error()
		}
		engine, containers, err := invariant.ReadDocker(dockertest.Plugin)
		if err != nil {
			return err.Error()
		}
		f := invariant.Facts{Ledger: ledger, Host: host, Before: before, Engine: engine}
		problems := append(f.Violations(), sameDevice(containers)...)
		if len(engine.Endpoints) != running {
			problems = append(problems, fmt.Sprintf("%d containers run, want %d", len(engine.Endpoints), running))
		}
		return strings.Join(problems, "\n")
	})
}

// sameDevice returns devices and addresses that two containers have.
func sameDevice(containers []invariant.Container) (problems []string) {
	have := map[string]string{}
	for _, c := range containers {
		for _, link := range c.Links {
			for _, what := range append(slices.Clone(link.Addrs), link.PCI, link.MAC) {
				if other, ok := have[what]; ok && what != "" {
					problems = append(problems, fmt.Sprintf("%s and %s both have %s", other, c.Name, what))
				}
				have[what] = c.Name
			}
		}
	}
	return problems
}
