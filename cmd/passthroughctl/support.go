package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
)

// A settingRow is a line of the command settings.
type settingRow struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// settingsCommand prints the settings of the plugin.
func (c *ctl) settingsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "settings", Short: "Print the settings that the plugin was started with, without passwords", Args: cobra.NoArgs,
		Example: "  passthroughctl settings",
		RunE: func(cmd *cobra.Command, _ []string) error {
			plugin, _, err := c.client()
			if err != nil {
				return err
			}
			var answer admin.Settings
			if err := plugin.Call(cmd.Context(), admin.SettingsCall, struct{}{}, &answer); err != nil {
				return err
			}
			var rows []settingRow
			for _, name := range slices.Sorted(maps.Keys(answer.Settings)) {
				rows = append(rows, settingRow{name, answer.Settings[name]})
			}
			return write(cmd.OutOrStdout(), c.format, rows, []column[settingRow]{
				{"SETTING", func(r settingRow) string { return r.Name }},
				{"VALUE", func(r settingRow) string { return r.Value }},
			})
		},
	}
}

// bundled are the commands whose output a support bundle has, by the names of the files.
var bundled = []struct {
	file string
	args []string
}{
	{"version.txt", []string{"version"}},
	{"settings.json", []string{"settings", "-f", "json"}},
	{"loglevel.txt", []string{"loglevel"}},
	{"status.txt", []string{"status"}},
	{"status.json", []string{"status", "-f", "json"}},
	{"nics.json", []string{"nics", "-f", "json"}},
	{"vfs.json", []string{"vfs", "-f", "json"}},
	{"pools.json", []string{"pools", "-f", "json"}},
	{"leases.json", []string{"leases", "-f", "json"}},
	{"events.json", []string{"events", "-f", "json"}},
	{"doctor.txt", []string{"doctor"}},
}

// bundledCalls are the calls of the plugin whose answers a support bundle has as they are.
var bundledCalls = map[string]string{"records.json": admin.StatusCall, "counters.json": "Passthrough.Counters"}

// supportCommand writes a support bundle.
func (c *ctl) supportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "support-bundle [FILE]", Short: "Write what others need to see what is wrong to a file", Args: cobra.MaximumNArgs(1),
		Long: "Write a .tar.gz of what the other commands print: versions, settings without passwords, networks, devices, NICs, VFs, pools,\n" +
			"leases, events, and what doctor finds. It has names of networks and containers, addresses and MACs, and no passwords or keys.\n" +
			"What cannot be found out, as when the plugin does not run, is an error in its file. FILE must not exist.",
		Example: "  passthroughctl support-bundle\n  passthroughctl support-bundle /tmp/host1.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "passthrough-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			if len(args) > 0 {
				name = args[0]
			}
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			if err := errors.Join(c.writeBundle(cmd.Context(), f), f.Close()); err != nil {
				return errors.Join(err, os.Remove(name))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			return err
		},
	}
}

// writeBundle writes a support bundle.
func (c *ctl) writeBundle(ctx context.Context, w io.Writer) error {
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	now := time.Now()
	add := func(name string, content []byte) error {
		err := archive.WriteHeader(&tar.Header{Name: path.Join("passthrough-support", name), Mode: 0o600, Size: int64(len(content)), ModTime: now})
		if err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	}
	for _, b := range bundled {
		if err := add(b.file, c.output(ctx, b.args)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(bundledCalls)) {
		if err := add(name, c.answer(ctx, bundledCalls[name])); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

// output returns what one of the program's commands prints, and its error at the end.
func (c *ctl) output(ctx context.Context, args []string) []byte {
	var b bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetArgs(slices.Concat(args, []string{"--socket", c.socket, "--engine", c.engineSocket}))
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	return b.Bytes()
}

// answer returns the answer of the plugin to a call, or the error.
func (c *ctl) answer(ctx context.Context, call string) []byte {
	plugin, _, err := c.client()
	var raw json.RawMessage
	if err == nil {
		err = plugin.Call(ctx, call, struct{}{}, &raw)
	}
	if err != nil {
		return fmt.Appendf(nil, "error: %v\n", err)
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return raw
	}
	return append(b.Bytes(), '\n')
}
