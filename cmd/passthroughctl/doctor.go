package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/option"
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
			findings, networks := c.checkPlugin(cmd)
			nics, err := checkNICs(host, os.DirFS("/"), args, networks)
			if err != nil {
				return err
			}
			findings = append(findings, nics...)
			more, err := checkRDMA(host, openRDMA(), os.DirFS("/"), hostAddrs(), networks)
			if err != nil {
				return err
			}
			findings = append(findings, more...)
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

// checkPlugin checks what does not depend on a NIC, and returns the plugin's networks with the names that the engine has for them.
func (c *ctl) checkPlugin(cmd *cobra.Command) (findings []finding, networks []admin.Network) {
	findings = []finding{c.checkEngine(cmd.Context()), checkClock()}
	v, err := c.view(cmd)
	if err != nil {
		return append(findings, finding{failure, "plugin", err.Error(), "docker plugin ls; journalctl -u docker says why it does not run"}), nil
	}
	for _, n := range v.status.Networks {
		n.Name = v.network(n.ID)
		networks = append(networks, n)
	}
	findings = append(findings, finding{healthy, "plugin", fmt.Sprintf("version %s answers at %s", v.status.Version, v.socket), ""})
	var answer admin.Settings
	if err := v.plugin.Call(cmd.Context(), admin.SettingsCall, struct{}{}, &answer); err != nil {
		findings = append(findings, finding{failure, "records", err.Error(), "the plugin's log says more"})
	} else {
		findings = append(append(findings, v.checkRecords(answer.Settings)), v.checkStore(cmd.Context(), answer.Settings)...)
		engine := admin.NewClient(c.engineSocket)
		findings = append(findings, v.checkSpecs(cmd.Context(), engine, answer.Settings)...)
		findings = append(findings, checkNamespaces(openRDMA(), v.mountSource(cmd.Context(), engine, netnsFolder))...)
	}
	pools, err := v.pools(cmd.Context())
	if err != nil {
		return append(findings, finding{failure, "addresses", err.Error(), "the plugin's log says more"}), networks
	}
	problems := v.report(pools, v.unrecorded(cmd.Context())).Problems
	for _, p := range problems {
		findings = append(findings, finding{warning, "state", p, ""})
	}
	if len(problems) == 0 {
		findings = append(findings, finding{healthy, "state", fmt.Sprintf("%d networks, %d devices in use, %d pools, nothing is wrong", len(v.status.Networks),
			len(v.status.Devices), len(pools)), ""})
	}
	return findings, networks
}

// checkRecords checks whether the records of a managed plugin, which has a folder named after its ID for its socket, survive its removal.
func (v *view) checkRecords(settings map[string]string) finding {
	const idLength = 64
	if len(path.Base(path.Dir(v.socket))) != idLength || settings["STATE_DIR"] != "/data" {
		return finding{healthy, "records", "they are in a folder of the host, and survive the plugin", ""}
	}
	return finding{warning, "records", "they are in the plugin alone, and docker plugin rm deletes them",
		"docs/backup.md has the commands that move them to a folder of the host"}
}

// checkStore checks the servers of an etcd, if pools are in one.
func (v *view) checkStore(ctx context.Context, settings map[string]string) []finding {
	if !strings.HasPrefix(settings["STORE"], "etcd") {
		return nil
	}
	const remedy = "docs/cluster.md says what works meanwhile; passthroughctl nodes shows all servers"
	var answer admin.Nodes
	if err := v.plugin.Call(ctx, admin.NodesCall, struct{}{}, &answer); err != nil {
		return []finding{{failure, "etcd", err.Error(), remedy}}
	}
	var findings []finding
	for _, s := range answer.Servers {
		switch {
		case s.Error != "":
			findings = append(findings, finding{warning, "etcd", s.Endpoint + ": " + s.Error, remedy})
		case len(s.Alarms) > 0:
			findings = append(findings, finding{failure, "etcd", s.Endpoint + ": alarm " + strings.Join(s.Alarms, ", "), remedy})
		case s.Quota > 0 && s.InUse > s.Quota/5*4:
			findings = append(findings, finding{warning, "etcd", fmt.Sprintf("%s: %s of its quota of %s are in use", s.Endpoint, mib(s.InUse), mib(s.Quota)),
				"raise --quota-backend-bytes"})
		default:
			findings = append(findings, finding{healthy, "etcd", s.Endpoint + ": version " + s.Version, ""})
		}
	}
	return findings
}

// checkClock checks whether something sets the clock: times in the log and of leases are read from it (adjtimex(2), which changes nothing here).
func checkClock() finding {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil && state == unix.TIME_ERROR {
		return finding{warning, "clock", "nothing synchronizes it: times of leases and in the log may be wrong", "an NTP client sets it: timedatectl timesync-status"}
	}
	return finding{healthy, "clock", time.Now().UTC().Format(time.DateTime) + " UTC", ""}
}

// checkEngine checks whether the engine answers.
func (c *ctl) checkEngine(ctx context.Context) finding {
	var v struct{ Version, APIVersion string }
	if err := admin.NewClient(c.engineSocket).Get(ctx, "/version", &v); err != nil {
		return finding{failure, "engine", err.Error(), "systemctl status docker"}
	}
	return finding{healthy, "engine", fmt.Sprintf("version %s, API %s", v.Version, v.APIVersion), ""}
}

// checkNICs checks the NIC that is named, or all that can have VFs, and whether networks fit to it.
func checkNICs(host *hw.Host, root fs.FS, names []string, networks []admin.Network) ([]finding, error) {
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
		vlans, err := host.VLANsOn(n.Netdev)
		if err != nil {
			return nil, err
		}
		findings = append(append(findings, of...), checkNetworks(n, vlans, networks)...)
	}
	switch {
	case !found && len(names) > 0:
		return nil, fmt.Errorf("no NIC %q; passthroughctl nics lists them", names[0])
	case len(findings) == 0:
		findings = append(findings, finding{warning, "nics", "no NIC of this machine can have VFs",
			"enable SR-IOV in the firmware of machine and NIC, or use mode=passthrough, macvlan or ipvlan"})
	}
	return append(append(findings, checkIOMMU(root)), checkHostRules(root)...), nil
}

// checkIOMMU says whether the machine has one. VFs that drivers of the kernel serve work without.
func checkIOMMU(root fs.FS) finding {
	if units, err := fs.ReadDir(root, "sys/class/iommu"); err == nil && len(units) > 0 {
		return finding{healthy, "iommu", "on", ""}
	}
	return finding{healthy, "iommu", "off; only driver=vfio-pci needs it", ""}
}

// checkNetworks checks whether networks fit to one of their NICs: its MTU, and the VLANs in which the host is on it, with the names of their devices.
func checkNetworks(n hw.NIC, vlans map[int]string, networks []admin.Network) []finding {
	var findings []finding
	for _, net := range networks {
		if !slices.Contains(net.Devices, n.Name) {
			continue
		}
		if mtu, err := strconv.Atoi(net.Options["mtu"]); err == nil && mtu > n.MTU && net.Mode != option.ModePassthrough {
			findings = append(findings, finding{failure, n.Name, fmt.Sprintf("its mtu is %d, and network %s has %d", n.MTU, net.Name, mtu),
				fmt.Sprintf("ip link set %s mtu %d", n.Name, mtu)})
		}
		vlan, err := strconv.Atoi(net.Options["vlan"])
		if device := vlans[vlan]; err == nil && net.Mode == option.ModeSRIOV && device != "" {
			findings = append(findings, finding{warning, n.Name, fmt.Sprintf("the host has %s in vlan %d of network %s", device, vlan, net.Name),
				"give the host or the network another VLAN, unless the host is to be in it"})
		}
	}
	return findings
}

// checkNIC checks one NIC and its VFs.
func checkNIC(host *hw.Host, n hw.NIC) ([]finding, error) {
	if n.NoVFs != nil {
		return []finding{{failure, n.Name, reason(n.NoVFs), ""}}, nil
	}
	pf, err := host.UsablePF(n.Name)
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
	reporters, err := host.HealthReporters(pf)
	if err != nil {
		return nil, err
	}
	for _, r := range reporters {
		if r.Failed {
			findings = append(findings, unhealthy(pf, r))
		}
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

// unhealthy is the finding about a health reporter of a PF that is in error.
func unhealthy(pf hw.PF, r hw.HealthReporter) finding {
	recovers := "does not recover by itself"
	if r.AutoRecover {
		recovers = "was not able to recover by itself"
	}
	reporter := fmt.Sprintf("pci/%s reporter %s", pf.PCI(), r.Name)
	return finding{failure, pf.Name, fmt.Sprintf("its driver reports that %s is in error, and %s (errors %d, recoveries %d)", r.Name, recovers, r.Errors,
		r.Recoveries), "devlink health diagnose " + reporter + "; devlink health recover " + reporter}
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
