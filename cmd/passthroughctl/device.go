package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
)

// quarantineCommand takes a VF out of use.
func (c *ctl) quarantineCommand() *cobra.Command {
	return &cobra.Command{
		Use: "quarantine VF [REASON]", Short: "Take a free VF out of use, until retry puts it back", Args: cobra.RangeArgs(1, 2),
		Long: "Take a free VF out of use: no container gets it, also after the plugin or the machine was restarted. passthroughctl retry puts it\n" +
			"back. VF is PF/INDEX, as passthroughctl vfs prints it, or a PCI address.",
		Example: "  passthroughctl quarantine enp1s0/3 \"ticket 4711\"\n  passthroughctl quarantine 02:10.6",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			r := admin.DeviceRequest{Action: admin.QuarantineDevice}
			if len(args) > 1 {
				r.Reason = args[1]
			}
			return v.operate(cmd, args[0], r)
		}),
	}
}

// retryCommand has a quarantined device tried again.
func (c *ctl) retryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "retry DEVICE", Short: "Try at once to release a quarantined device, or put one back into use", Args: cobra.ExactArgs(1),
		Long: "Try at once to release a device that is quarantined because it could not be restored, or put a VF back that passthroughctl\n" +
			"quarantine has taken out of use. DEVICE is PF/INDEX or a PCI address, or what passthroughctl status calls it.",
		Example: "  passthroughctl retry enp1s0/3",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			return v.operate(cmd, args[0], admin.DeviceRequest{Action: admin.RetryDevice})
		}),
	}
}

// freeCommand frees the device of a container that is gone.
func (c *ctl) freeCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "free DEVICE", Short: "Free the device of a container that the engine does not have any more", Args: cobra.ExactArgs(1),
		Long: "Free the device of a container that the engine does not have any more. The plugin does that by itself, but waits for minutes\n" +
			"where it cannot be sure. The engine is asked whether it has the container; one that runs keeps its device. With --force, and\n" +
			"after a question, the engine need not answer, and a device that was given away in the last minute is freed as well. A device\n" +
			"that is still in a container is free once that has ended. DEVICE is as for passthroughctl retry.",
		Example: "  passthroughctl free enp1s0/3",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			id, err := v.resolve(args[0])
			if err != nil {
				return err
			}
			d := v.deviceByID(id)
			if d == nil {
				return fmt.Errorf("%s is free, or not a device of the plugin; passthroughctl vfs lists VFs", args[0])
			}
			if err := v.checkGone(d, force); err != nil {
				return err
			}
			if force {
				if err := confirm(cmd, fmt.Sprintf("%s is %s to %s. Free it?", d.Label, d.State, v.container(d.Endpoint))); err != nil {
					return err
				}
			}
			return v.operate(cmd, args[0], admin.DeviceRequest{Action: admin.FreeDevice, Endpoint: d.Endpoint})
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not depend on the engine's answer; asks before it frees anything")
	return cmd
}

// checkGone refuses to free a device whose container may still be there.
func (v *view) checkGone(d *admin.Device, force bool) error {
	at, known := v.containers[d.Endpoint]
	switch {
	case known:
		return fmt.Errorf("%s: container %s has it and is %s; docker stop %s ends that", d.Label, at.container, at.state, at.container)
	case force:
		return nil
	case d.Owner != nil && namespaceGone(d.Owner) == "":
		return fmt.Errorf("%s: %s has it, and %s is there; its runtime ends that", d.Label, v.container(d.Endpoint), d.Owner.Netns)
	case d.Owner == nil && v.containers == nil:
		return fmt.Errorf("%s: the engine does not say whether its container is gone; if you know that it is, use --force", d.Label)
	case time.Since(d.Since) < settles:
		return fmt.Errorf("%s: it is %s for only %s, and the engine may still be at work on its container; wait a minute, or use --force",
			d.Label, d.State, since(d.Since))
	}
	return nil
}

// confirm asks a question, and returns an error unless the answer is yes.
func confirm(cmd *cobra.Command, question string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s (yes/no) ", question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // without an answer it is not yes
	if strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("not confirmed; nothing was changed")
	}
	return nil
}

// operate has the plugin do something with the device that a user named, and prints what was done.
func (v *view) operate(cmd *cobra.Command, name string, r admin.DeviceRequest) (err error) {
	if r.Device, err = v.resolve(name); err != nil {
		return err
	}
	var answer admin.DeviceAnswer
	if err := v.plugin.Call(cmd.Context(), admin.DeviceCall, r, &answer); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), answer.Text)
	return err
}

// resolve returns the ID of a device that a user named: by PF/INDEX, PCI address, ID, or the name that messages have for it. All children of
// one device have one name: which of them is meant is not guessed.
func (v *view) resolve(name string) (string, error) {
	var named []string
	for _, d := range v.status.Devices {
		label, _, _ := strings.Cut(d.Label, " (")
		switch {
		case name == d.ID, hw.ID(d.ID).IsPCI() && strings.TrimPrefix(hw.ID(d.ID).PCI(), "0000:") == strings.ToLower(name):
			return d.ID, nil
		case name == d.Label, name == label:
			named = append(named, d.ID)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		return "", fmt.Errorf("%d devices are called %q; passthroughctl who CONTAINER -f '{{.ID}}' prints the ID of one", len(named), name)
	}
	host, err := openHost()
	if err != nil {
		return "", err
	}
	pf, index, ok := strings.Cut(name, "/")
	vf, bad := strconv.Atoi(index)
	pfs, err := allPFs(host)
	if err != nil {
		return "", err
	}
	for _, p := range pfs {
		vfs, err := host.VFs(p)
		if err != nil {
			return "", err
		}
		for _, x := range vfs {
			if ok && bad == nil && (pf == p.Name || pf == p.PCI()) && vf == x.Index || strings.TrimPrefix(x.PCI, "0000:") == strings.TrimPrefix(strings.ToLower(name), "0000:") {
				return string(x.ID()), nil
			}
		}
	}
	return "", fmt.Errorf("no device %q; passthroughctl vfs lists the VFs, passthroughctl status what is wrong", name)
}
