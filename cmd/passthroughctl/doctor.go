package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
)

// A finding is what one check of the command doctor has found.
type finding struct {
	Severity string `json:"severity"` // ok, warn or fail
	Subject  string `json:"subject"`  // what was checked
	Text     string `json:"text"`
	Remedy   string `json:"remedy,omitempty"` // a command, or what to do
}

// The severities of findings.
const (
	healthy = "ok"
	warning = "warn" // it works, but not as an operator may expect
	failure = "fail" // containers cannot get a device, or lose theirs
)

// errUnhealthy ends the command doctor if a finding is a failure.
var errUnhealthy = errors.New("there are failures")

// doctorCommand checks plugin, engine and NICs.
func (c *ctl) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [PF]", Short: "Check plugin, engine and NICs, and say how to mend what is wrong", Args: cobra.MaximumNArgs(1),
		Example: "  passthroughctl doctor\n  passthroughctl doctor enp1s0",
		Long: "Check the plugin, the engine and the NICs of this machine, or one NIC. Each finding has what to do about it. The exit status is 1\n" +
			"if any finding is a failure.",
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := openHost()
			if err != nil {
				return err
			}
			findings := c.checkPlugin(cmd)
			nics, err := checkNICs(host, os.DirFS("/"), args)
			if err != nil {
				return err
			}
			findings = append(findings, nics...)
			err = write(cmd.OutOrStdout(), c.format, findings, []column[finding]{
				{"RESULT", func(f finding) string { return f.Severity }},
				{"CHECK", func(f finding) string { return f.Subject }},
				{"FINDING", func(f finding) string {
					if f.Remedy == "" {
						return f.Text
					}
					return f.Text + "; " + f.Remedy
				}},
			})
			for _, f := range findings {
				if f.Severity == failure && err == nil {
					err = errUnhealthy
				}
			}
			return err
		},
	}
}

// checkPlugin checks what does not depend on a NIC.
func (c *ctl) checkPlugin(cmd *cobra.Command) []finding {
	findings := []finding{c.checkEngine(cmd.Context())}
	v, err := c.view(cmd)
	if err != nil {
		return append(findings, finding{failure, "plugin", err.Error(), "docker plugin ls; journalctl -u docker says why it does not run"})
	}
	findings = append(findings, finding{healthy, "plugin", fmt.Sprintf("version %s answers at %s", v.status.Version, v.socket), ""})
	findings = append(findings, v.checkRecords(cmd.Context())...)
	pools, err := v.pools(cmd.Context())
	if err != nil {
		return append(findings, finding{failure, "addresses", err.Error(), "the plugin's log says more"})
	}
	problems := v.report(pools, v.unrecorded(cmd.Context())).Problems
	for _, p := range problems {
		findings = append(findings, finding{warning, "state", p, ""})
	}
	if len(problems) == 0 {
		findings = append(findings, finding{healthy, "state", fmt.Sprintf("%d networks, %d devices in use, %d pools, nothing is wrong", len(v.status.Networks),
			len(v.status.Devices), len(pools)), ""})
	}
	return findings
}

// checkRecords checks whether the records of a managed plugin, which has a folder named after its ID for its socket, survive its removal.
func (v *view) checkRecords(ctx context.Context) []finding {
	var answer admin.Settings
	if err := v.plugin.Call(ctx, admin.SettingsCall, struct{}{}, &answer); err != nil {
		return []finding{{failure, "records", err.Error(), "the plugin's log says more"}}
	}
	const idLength = 64
	if len(path.Base(path.Dir(v.socket))) != idLength || answer.Settings["STATE_DIR"] != "/data" {
		return []finding{{healthy, "records", "they are in a folder of the host, and survive the plugin", ""}}
	}
	return []finding{{warning, "records", "they are in the plugin alone, and docker plugin rm deletes them",
		"docs/backup.md has the commands that move them to a folder of the host"}}
}

// checkEngine checks whether the engine answers.
func (c *ctl) checkEngine(ctx context.Context) finding {
	var v struct{ Version, APIVersion string }
	if err := admin.NewClient(c.engineSocket).Get(ctx, "/version", &v); err != nil {
		return finding{failure, "engine", err.Error(), "systemctl status docker"}
	}
	return finding{healthy, "engine", fmt.Sprintf("version %s, API %s", v.Version, v.APIVersion), ""}
}

// checkNICs checks the NIC that is named, or all that can have VFs.
func checkNICs(host *hw.Host, root fs.FS, names []string) ([]finding, error) {
	nics, err := host.NICs()
	if err != nil {
		return nil, err
	}
	var findings []finding
	found := false
	for _, n := range nics {
		if len(names) > 0 && n.Name != names[0] && n.ID.PCI() != names[0] {
			continue
		}
		found = true
		if len(names) == 0 && n.NoVFs != nil {
			continue
		}
		of, err := checkNIC(host, n)
		if err != nil {
			return nil, err
		}
		findings = append(findings, of...)
	}
	switch {
	case !found && len(names) > 0:
		return nil, fmt.Errorf("no NIC %q; passthroughctl nics lists them", names[0])
	case len(findings) == 0:
		findings = append(findings, finding{warning, "nics", "no NIC of this machine can have VFs",
			"enable SR-IOV in the firmware of machine and NIC, or use mode=passthrough, macvlan or ipvlan"})
	}
	return append(findings, checkHostRules(root)...), nil
}

// checkNIC checks one NIC and its VFs.
func checkNIC(host *hw.Host, n hw.NIC) ([]finding, error) {
	if n.NoVFs != nil {
		return []finding{{failure, n.Name, reason(n.NoVFs), ""}}, nil
	}
	pf, err := host.LegacyPF(n.Name)
	if err != nil {
		return []finding{{failure, n.Name, reason(err), ""}}, nil
	}
	var findings []finding
	switch {
	case !n.Up && n.NumVFs > 0:
		findings = append(findings, finding{warning, n.Name, "it is down, and so are its VFs", "ip link set " + n.Name + " up"})
	case n.Up && !n.Carrier:
		findings = append(findings, finding{warning, n.Name, "it has no carrier: its VFs reach nothing outside of the NIC", "check cable and switch"})
	}
	vfs, err := host.VFs(pf)
	if err != nil {
		return nil, err
	}
	for _, vf := range vfs {
		why, err := host.Taken(vf)
		if err != nil {
			return nil, err
		}
		if why != "" && vf.Netdev.Index != 0 {
			findings = append(findings, finding{warning, n.Name, fmt.Sprintf("vf %d (%s) %s: containers do not get it", vf.Index, vf.Netdev.Name, why),
				"ip link set " + vf.Netdev.Name + " down, unless the host uses it"})
		}
	}
	if len(findings) == 0 {
		findings = append(findings, finding{healthy, n.Name, fmt.Sprintf("%s: link %s%s, %d of %d VFs", n.Driver, linkState(n.Link), speedText(n.Speed),
			n.NumVFs, n.TotalVFs), ""})
	}
	return findings, nil
}

// hostRules are the rules by which network software leaves VFs alone (docs/host.md), with what the host has while that software runs.
var hostRules = []struct{ software, runs, rule string }{
	{"NetworkManager", "run/NetworkManager", "etc/udev/rules.d/71-passthrough-vfs.rules"},
	{"systemd-networkd", "run/systemd/netif/state", "etc/systemd/network/05-passthrough-vfs.network"},
}

// checkHostRules checks that network software which runs on the host has the rules. root is the host's root directory.
func checkHostRules(root fs.FS) []finding {
	var findings []finding
	for _, r := range hostRules {
		if _, err := fs.Stat(root, r.runs); err != nil {
			continue
		}
		if _, err := fs.Stat(root, r.rule); err != nil {
			findings = append(findings, finding{warning, "host", r.software + " may configure VFs on their way to a container",
				fmt.Sprintf("install -m 644 scripts/host-rules/%s /%s", path.Base(r.rule), r.rule)})
		}
	}
	return findings
}
