package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// backupCommand writes a backup of the plugin's records.
func (c *ctl) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup [FILE]", Short: "Write the plugin's records to a file", Args: cobra.MaximumNArgs(1),
		Example: "  passthroughctl backup\n  passthroughctl backup /root/passthrough.backup",
		Long: "Write all that the plugin has recorded, at one moment while it runs, to a new\n" +
			"file that only root can read: networks with their options, endpoints and\n" +
			"devices, pools and leases with the names of containers. Passwords, keys and\n" +
			"settings are not in it. With STORE=etcd pools and leases are in the etcd, and\n" +
			"not in the file.",
		RunE: func(cmd *cobra.Command, args []string) error {
			plugin, _, err := c.client()
			if err != nil {
				return err
			}
			path := "passthrough-" + time.Now().Format("20060102-150405") + ".backup"
			if len(args) > 0 {
				path = args[0]
			}
			if err := writeBackup(cmd.Context(), plugin, path); err != nil {
				return fmt.Errorf("backup %s: %w", path, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
}

// writeBackup writes a backup to a new file, which is removed if that fails.
func writeBackup(ctx context.Context, plugin *admin.Client, path string) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	err = plugin.Stream(ctx, admin.BackupCall, file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	_, err = readBackup(path)
	return err
}

// A backupView is what the tool reads of a backup. The plugin checks that it is whole; this only finds that it was cut off.
type backupView struct {
	networks, endpoints map[string]bool // IDs
}

// readBackup reads which networks and endpoints a backup has.
func readBackup(path string) (backupView, error) {
	b := backupView{map[string]bool{}, map[string]bool{}}
	file, err := os.Open(path)
	if err != nil {
		return b, err
	}
	defer func() { _ = file.Close() }() // it is only read
	lines, whole := bufio.NewScanner(file), false
	lines.Buffer(nil, admin.RestorePart)
	for lines.Scan() {
		var l struct {
			Key     string
			Records *int
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return b, fmt.Errorf("not a backup: %w", err)
		}
		whole = l.Records != nil
		if id, ok := strings.CutPrefix(l.Key, ledger.NetworkPrefix); ok {
			b.networks[id] = true
		}
		if ids, ok := strings.CutPrefix(l.Key, ledger.EndpointPrefix); ok {
			_, id, _ := strings.Cut(ids, "/")
			b.endpoints[id] = true
		}
	}
	if !whole && lines.Err() == nil {
		return b, errors.New("the end of the backup is missing")
	}
	return b, lines.Err()
}

// restoreCommand replaces the plugin's records by those of a backup.
func (c *ctl) restoreCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace the plugin's records by those of a backup", Args: cobra.ExactArgs(1),
		Example: "  passthroughctl restore /root/passthrough.backup",
		Long: "Replace the plugin's records by those of a backup, and have the plugin start\n" +
			"again with them. It is refused while the plugin has records of networks, and if\n" +
			"a container that runs on a network of the backup was started after it: its\n" +
			"address and its device would be given to others. With --force, and after a\n" +
			"question, both are restored over. The records of before stay in the state\n" +
			"directory.",
		RunE: func(cmd *cobra.Command, args []string) error {
			plugin, socket, err := c.client()
			if err != nil {
				return err
			}
			b, err := readBackup(args[0])
			if err != nil {
				return fmt.Errorf("restore %s: %w", args[0], err)
			}
			if force {
				err = confirm(cmd, "Containers that are not in the backup may lose their devices and addresses to others. Replace the records?")
			} else {
				err = c.refuseNewer(cmd.Context(), socket, b)
			}
			if err != nil {
				return err
			}
			run, err := runOf(cmd.Context(), plugin)
			if err != nil {
				return err
			}
			n, err := sendBackup(cmd.Context(), plugin, args[0], force)
			if err != nil {
				return err
			}
			if err := awaitAnother(cmd.Context(), plugin, run); err != nil {
				return fmt.Errorf("%d records are restored, but the plugin does not answer: %w; start it again", n, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d records are restored\n", n)
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "restore over records of networks and newer containers; asks before")
	return cmd
}

// refuseNewer refuses a backup that lacks a container which runs on one of its networks. A network of another driver that has its addresses from
// the plugin cannot be found in a backup, so none of its containers may run.
func (c *ctl) refuseNewer(ctx context.Context, socket string, b backupView) error {
	v := &view{}
	engine := admin.NewClient(c.engineSocket)
	if err := v.askEngine(ctx, engine); err != nil {
		return fmt.Errorf("restore: whether a container is newer than the backup cannot be told: %w; --force restores it all the same", err)
	}
	ours, err := engineNetworks(ctx, engine, socket)
	if err != nil {
		return err
	}
	var newer []string
	for _, at := range v.containers {
		foreign := slices.ContainsFunc(ours, func(n engineNetwork) bool { return n.ID == at.network && !n.device })
		if b.networks[at.network] && !b.endpoints[at.endpoint] || foreign {
			newer = append(newer, at.container)
		}
	}
	slices.Sort(newer)
	if len(newer) > 0 {
		return fmt.Errorf("restore: not in the backup are the containers %s, which have addresses or devices that it would give to others; stop them, or "+
			"docker network disconnect them, and start them again after it", strings.Join(slices.Compact(newer), ", "))
	}
	return nil
}

// sendBackup sends a backup to the plugin and has it restored. It returns the number of records.
func sendBackup(ctx context.Context, plugin *admin.Client, path string, force bool) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // it is only read
	var answer admin.RestoreAnswer
	part, offset := make([]byte, admin.RestorePart), int64(0)
	for {
		n, err := io.ReadFull(file, part)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		if n > 0 {
			if err := plugin.Call(ctx, admin.RestoreCall, admin.RestoreRequest{Offset: offset, Part: part[:n]}, &answer); err != nil {
				return 0, err
			}
		}
		offset += int64(n)
		if err != nil {
			break
		}
	}
	err = plugin.Call(ctx, admin.RestoreCall, admin.RestoreRequest{Commit: true, Force: force}, &answer)
	return answer.Records, err
}

// runOf returns which process of the plugin answers.
func runOf(ctx context.Context, plugin *admin.Client) (string, error) {
	var e admin.Events
	err := plugin.Call(ctx, admin.EventsCall, admin.EventsRequest{}, &e)
	return e.Run, err
}

// awaitAnother waits until another process of the plugin answers than the one that is ending.
func awaitAnother(ctx context.Context, plugin *admin.Client, run string) error {
	var last error
	err := retry.Poll(ctx, 200*time.Millisecond, 30*time.Second, func() (bool, error) {
		now, err := runOf(ctx, plugin)
		last = err
		return err == nil && now != run, nil
	})
	if err != nil {
		err = errors.Join(err, last)
	}
	return err
}
