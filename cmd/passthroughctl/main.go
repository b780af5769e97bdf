// Command passthroughctl shows an operator what the plugin has given to which container, and what the NICs of this machine have. It reads
// the plugin's records over its socket, names over the engine's, and the rest from the kernel. What changes something, such as quarantine, the
// plugin does. It is a tool of the host: run it as root, in the host's network namespace.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
)

// What this build is; the linker sets it. date is that of the commit.
var (
	version = "unversioned"
	commit  = "unknown"
	date    = "unknown"
)

// buildText returns a version as it is printed. A plugin of an older version does not say its commit.
func buildText(version, commit, date string) string {
	if commit == "" {
		return version
	}
	return fmt.Sprintf("%s, commit %s of %s", version, commit, date)
}

func main() {
	ctx, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer ignore()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "passthroughctl: %v\n", err)
		os.Exit(1)
	}
}

// newCommand returns the program's command with all of its commands.
func newCommand() *cobra.Command {
	c := &ctl{}
	root := &cobra.Command{
		Use: "passthroughctl", Short: "Show what containers have of this machine's NICs",
		Example:      "  passthroughctl status\n  passthroughctl vfs -f json",
		SilenceUsage: true, SilenceErrors: true, Version: buildText(version, commit, date),
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", "", "socket of the plugin (default: it is searched in /run/docker/plugins)")
	flags.StringVar(&c.engineSocket, "engine", "/var/run/docker.sock", "socket of the Docker Engine")
	flags.StringVarP(&c.format, "format", "f", "table", "table, json, or a Go template for each line, such as '{{.MAC}}'")
	root.AddCommand(c.statusCommand(), c.nicsCommand(), c.vfsCommand(), c.poolsCommand(), c.leasesCommand(), c.whoCommand(),
		c.explainCommand(), c.planCommand(), c.doctorCommand(), c.quarantineCommand(), c.retryCommand(), c.freeCommand(),
		c.eventsCommand(), c.settingsCommand(), c.supportCommand(), c.recordCommand(), c.backupCommand(), c.restoreCommand(),
		c.nodesCommand(), railsCommand(c), c.forgetCommand(), c.logLevelCommand(), c.versionCommand(), manCommand(root))
	return root
}

// logLevelCommand prints or changes the log level of the plugin.
func (c *ctl) logLevelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "loglevel [debug|info|warn|error]", Short: "Print or change what the plugin logs, until it is restarted", Args: cobra.MaximumNArgs(1),
		Example: "  passthroughctl loglevel\n  passthroughctl loglevel debug",
		RunE: c.withView(func(cmd *cobra.Command, v *view, args []string) error {
			var level admin.LogLevel
			if len(args) > 0 {
				level.Level = args[0]
			}
			if err := v.plugin.Call(cmd.Context(), admin.LogLevelCall, level, &level); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), level.Level)
			return err
		}),
	}
}

// versionCommand prints the versions of this program and of the plugin.
func (c *ctl) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of this program and of the plugin", Args: cobra.NoArgs,
		Example: "  passthroughctl version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "passthroughctl %s\n", buildText(version, commit, date))
			v, err := c.view(cmd)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "plugin         %s\n", buildText(v.status.Version, v.status.Commit, v.status.Date))
			}
			return err
		},
	}
}
