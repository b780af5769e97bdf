package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/card"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
)

// A recording has the flags of the command record.
type recording struct {
	touch, yes, alone bool
}

// recordCommand records a NIC.
func (c *ctl) recordCommand() *cobra.Command {
	r := recording{}
	cmd := &cobra.Command{
		Use: "record PF", Short: "Print what the kernel shows of a NIC, as a file to send to the plugin's developers", Args: cobra.ExactArgs(1),
		Long: "Print what sysfs, rtnetlink, devlink and ethtool show of a PF and its first VFs, as JSON. MACs are made up. There are no names of\n" +
			"hosts or devices, no addresses and no serial numbers in it. Nothing is changed.\n\n" +
			"With --touch it also has how the driver reacts to settings of one VF that nothing uses: VLAN, MAC, rates, link state, spoof check,\n" +
			"trust, MTU and the number of VFs. Each is announced, and undone; what is not as before is said, and the exit status is 1. The\n" +
			"plugin is asked for the VF, which is in quarantine meanwhile: if the command is killed, passthroughctl retry restores the VF. If\n" +
			"the PF has no VFs, two are made and removed.",
		Example: "  passthroughctl record ens2f0 >card.json\n  passthroughctl record --touch ens2f0 >card.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.record(cmd, args[0], r)
		},
	}
	cmd.Flags().BoolVar(&r.touch, "touch", false, "change settings of a VF that nothing uses, and undo that; asks before it begins")
	cmd.Flags().BoolVar(&r.yes, "yes", false, "with --touch: do not ask")
	cmd.Flags().BoolVar(&r.alone, "without-plugin", false, "with --touch: on a host that does not have the plugin")
	return cmd
}

// record records a PF and prints the record.
func (c *ctl) record(cmd *cobra.Command, pf string, how recording) error {
	kernel, err := rtnl.Open("/sys", "/proc/irq")
	if err != nil {
		return err
	}
	host, err := hw.Open(hw.Config{Kernel: kernel, Sys: kernel.Sysfs()})
	if err != nil {
		return err
	}
	r := &card.Recorder{Kernel: rtnl.CardReader{Kernel: kernel}, Host: host, Sys: kernel.Sysfs()}
	of, err := r.Record(pf)
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	of.Recorded, of.Tool, of.Kernel = time.Now().UTC().Format(time.DateOnly), version, strings.TrimSpace(string(release))
	if how.touch {
		if err := c.touch(cmd, r, of, pf, how); err != nil {
			return err
		}
	}
	if err := printCard(cmd, r, of); err != nil {
		return err
	}
	if of.Touch != nil && len(of.Touch.Differs) > 0 {
		return fmt.Errorf("not all is as before: %s", strings.Join(of.Touch.Differs, "; "))
	}
	return nil
}

// printCard prints a record that has nothing private in it.
func printCard(cmd *cobra.Command, r *card.Recorder, of *card.Card) error {
	private, err := r.Private()
	if err != nil {
		return err
	}
	if name, err := os.Hostname(); err == nil {
		private = append(private, name)
	}
	var text bytes.Buffer
	if err := of.Write(&text); err != nil {
		return err
	}
	if err := card.CheckPrivate(text.String(), private...); err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(text.Bytes())
	return err
}

// touch adds to a record how the driver reacts.
func (c *ctl) touch(cmd *cobra.Command, r *card.Recorder, of *card.Card, pf string, how recording) error {
	hold, err := c.hold(r.Host, how.alone)
	if err != nil {
		return err
	}
	if !how.yes {
		err := confirm(cmd, fmt.Sprintf("This changes settings of one VF of %s that nothing uses, one after the other, and undoes them. Begin?", pf))
		if err != nil {
			return err
		}
	}
	say := func(step string) { fmt.Fprintln(cmd.ErrOrStderr(), step) }
	return r.Touch(cmd.Context(), of, pf, hold, say)
}

// hold returns what takes a VF out of use. The plugin does it: a VF that it has lent or holds is refused, it lends the VF to no container
// meanwhile, and its ledger has how the VF was. alone is for hosts without the plugin.
func (c *ctl) hold(host *hw.Host, alone bool) (card.Hold, error) {
	plugin, socket, err := c.client()
	switch {
	case alone && errors.Is(err, admin.ErrNoSocket):
		return card.Restoring(host), nil
	case alone && err != nil: // a plugin that does not answer now may have lent VFs
		return nil, fmt.Errorf("--without-plugin: %w", err)
	case alone:
		return nil, fmt.Errorf("--without-plugin: the plugin is here, at %s", socket)
	case err != nil:
		return nil, fmt.Errorf("which VFs are free? %w; if this host does not have the plugin: --without-plugin", err)
	}
	var status admin.Status
	if err := plugin.Call(context.Background(), admin.StatusCall, struct{}{}, &status); err != nil {
		return nil, fmt.Errorf("which VFs are free? %w", err)
	}
	return func(ctx context.Context, _ hw.PF, vf hw.VF) (func(context.Context) error, error) {
		operate := func(ctx context.Context, action string) error {
			r := admin.DeviceRequest{Action: action, Device: string(vf.ID())}
			if action == admin.QuarantineDevice {
				r.Reason = "passthroughctl record"
			}
			var answer admin.DeviceAnswer
			return plugin.Call(ctx, admin.DeviceCall, r, &answer)
		}
		if err := operate(ctx, admin.QuarantineDevice); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			err := operate(ctx, admin.RetryDevice)
			if err != nil {
				err = fmt.Errorf("%w; try again with: passthroughctl retry %s", err, vf.PCI)
			}
			return err
		}, nil
	}, nil
}
