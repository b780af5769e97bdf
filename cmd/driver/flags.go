package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// flag returns the name of the setting's flag, without dashes.
func (s setting) flag() string { return strings.ToLower(strings.ReplaceAll(s.name, "_", "-")) }

// errVersion is parseFlags' error if the version is asked for.
var errVersion = errors.New("the version is asked for")

// parseFlags reads the flags before a command, and returns the values of settings by their variables, and the command with its arguments.
// The error is flag.ErrHelp if help is asked for, and errVersion if the version is.
func parseFlags(args []string) (values map[string]string, command []string, err error) {
	values = map[string]string{}
	set := flag.NewFlagSet("driver", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.BoolFunc("d", "", func(string) error {
		values["LOG_LEVEL"] = "debug"
		return nil
	})
	askedVersion := false
	set.BoolVar(&askedVersion, "version", false, "")
	for _, s := range settings {
		set.Func(s.flag(), "", func(value string) error {
			values[s.name] = value
			return nil
		})
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, nil, err
	case err != nil:
		return nil, nil, fmt.Errorf("%w; driver --help lists the flags", err)
	case askedVersion:
		return nil, nil, errVersion
	}
	return values, set.Args(), nil
}

// writeHelp prints every setting with its default, and the commands.
func writeHelp(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `driver %s: the plugin passthrough for Docker, a network driver and an IPAM driver on one socket.

usage: driver [FLAG...]            serve the engine until SIGTERM or SIGINT
       driver [FLAG...] COMMAND    run a command for operators, see below

Nothing is mandatory. Each setting is a flag or a variable of the environment. A flag overrides its variable; an empty value means the
default.

  -d
      debug: as --log-level debug

  --version
      print the version, its commit and the date of that, and end
`, version)
	for _, s := range settings {
		fmt.Fprintf(&b, "\n  --%s VALUE, or %s=VALUE (default: %s)\n      %s\n      VALUE: %s\n", s.flag(), s.name, defaultText(s), s.help, s.allowed)
	}
	b.WriteString("\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-22s %s\n", c.usage, c.help)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// defaultText returns a setting's default as the documentation has it.
func defaultText(s setting) string {
	if s.byDefault == "" {
		return "none"
	}
	return s.byDefault
}
