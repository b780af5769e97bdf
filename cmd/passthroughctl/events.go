package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/retry"
)

// eventsCommand prints the plugin's decisions.
func (c *ctl) eventsCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use: "events", Short: "Print what the plugin has decided: attach, release, quarantine, repair, sweep, warning", Args: cobra.NoArgs,
		Long: "Print the last decisions of the plugin, a line each: attach (a container has its device), release (a device is free), quarantine\n" +
			"and quarantine-end, repair (what was changed on the host was set again), sweep (what the engine has forgotten was removed), and\n" +
			"warning. The plugin remembers 1000 of them until it is restarted. With --follow, print them as they come until interrupted;\n" +
			"--format json then prints a JSON object per line.",
		Example: "  passthroughctl events\n  passthroughctl events --follow --format json",
		RunE: c.withView(func(cmd *cobra.Command, v *view, _ []string) error {
			var request admin.EventsRequest
			for first := true; ; first = false {
				var answer admin.Events
				err := v.plugin.Call(cmd.Context(), admin.EventsCall, request, &answer)
				switch {
				case follow && cmd.Context().Err() != nil:
					return nil
				case err != nil && (first || !follow):
					return err
				case err != nil: // it is being restarted
					v = c.again(cmd, v)
					continue
				}
				if answer.Run != request.Run {
					request = admin.EventsRequest{Run: answer.Run, Wait: true}
				}
				if answer.Lost > 0 && !first {
					fmt.Fprintf(cmd.ErrOrStderr(), "passthroughctl: %d events came faster than they were read, and are lost\n", answer.Lost)
				}
				if err := c.printEvents(cmd, v, answer.Events, follow); err != nil || !follow {
					return err
				}
				if n := len(answer.Events); n > 0 {
					request.After = answer.Events[n-1].Seq
				}
			}
		}),
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with those that come")
	return cmd
}

// again returns a view of a plugin that did not answer, once it does. It may have another socket then. It returns the view before if the
// command is interrupted.
func (c *ctl) again(cmd *cobra.Command, was *view) *view {
	fmt.Fprintln(cmd.ErrOrStderr(), "passthroughctl: the plugin does not answer; waiting for it")
	for retry.Sleep(cmd.Context(), time.Second) == nil {
		if v, err := c.view(cmd); err == nil {
			return v
		}
	}
	return was
}

// printEvents prints events as --format says; a stream of JSON has an object per line.
func (c *ctl) printEvents(cmd *cobra.Command, v *view, events []admin.Event, stream bool) error {
	out := cmd.OutOrStdout()
	switch {
	case c.format == "json" && stream:
		e := json.NewEncoder(out)
		for _, event := range events {
			if err := e.Encode(event); err != nil {
				return err
			}
		}
		return nil
	case c.format != "table":
		return write(out, c.format, events, nil)
	}
	if stream {
		v.learn(cmd.Context(), admin.NewClient(c.engineSocket), events)
	}
	for _, event := range events {
		if err := v.printEvent(out, event); err != nil {
			return err
		}
	}
	return nil
}

// learn asks the engine for the names in events that the view does not have, as those of containers that have started since. Engines before 29
// do not tell the plugin the name of a container, and list its endpoint a moment after it is attached: they are asked for two seconds. Without
// names there are IDs.
func (v *view) learn(ctx context.Context, engine *admin.Client, events []admin.Event) {
	unknown := func(want func(admin.Event) bool) bool { return slices.ContainsFunc(events, want) }
	if unknown(func(e admin.Event) bool { return e.Fields["network"] != "" && v.networkOf(e) == e.Fields["network"] }) {
		_ = v.askEngine(ctx, engine)
	}
	_ = retry.Poll(ctx, 200*time.Millisecond, 2*time.Second, func() (bool, error) {
		missing := unknown(func(e admin.Event) bool {
			return e.Kind == admin.EventAttach && v.containerOf(e) == "" && time.Since(e.Time) < 10*time.Second
		})
		if missing {
			_ = v.askEngine(ctx, engine)
		}
		return !missing, nil
	})
}

// containerOf returns the name of the container of an event, "" if it is not known.
func (v *view) containerOf(e admin.Event) string {
	if name := e.Fields["container"]; name != "" {
		return name
	}
	for endpoint, at := range v.containers {
		if id := e.Fields["endpoint"]; id != "" && strings.HasPrefix(endpoint, id) {
			return at.container
		}
	}
	return ""
}

// networkOf returns the name of the network of an event, or its ID.
func (v *view) networkOf(e admin.Event) string {
	id := e.Fields["network"]
	for full, name := range v.names {
		if id != "" && strings.HasPrefix(full, id) {
			return name
		}
	}
	return id
}

// printEvent prints one event for people.
func (v *view) printEvent(w io.Writer, e admin.Event) error {
	f := e.Fields
	container := v.containerOf(e)
	if container == "" && f["endpoint"] != "" {
		container = "endpoint " + f["endpoint"]
	}
	device, _, _ := strings.Cut(f["device"], " (") // without the PCI address
	words := []string{device, f["route"], f["address"], f["pool"]}
	if e.Kind == admin.EventWarning || e.Kind == admin.EventSweep {
		words = append(words, e.Text+":")
	}
	if network := v.networkOf(e); network != "" {
		words = append(words, "of "+network)
	}
	if container != "" {
		words = append(words, "for "+container)
	}
	words = append(words, f["addresses"], f["attribute"], f["outcome"], cmp.Or(f["reason"], f["err"], f["error"]))
	words = slices.DeleteFunc(words, func(word string) bool { return word == "" })
	_, err := fmt.Fprintf(w, "%s %-14s %s\n", e.Time.Local().Format("15:04:05"), e.Kind, strings.Join(words, " "))
	return err
}
