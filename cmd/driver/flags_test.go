package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestFlags: a flag sets what its variable sets, and overrides it; what follows the flags is a command.
func TestFlags(t *testing.T) {
	environment := env("LOG_LEVEL=error", "DEVICES=a=eth0", "REQUIRE_MAC=true")
	for _, c := range []struct {
		args, command []string
		want          func(*config)
	}{
		{nil, nil, func(*config) {}},
		{[]string{"-d"}, nil, func(c *config) { c.logLevel = zapcore.DebugLevel }},
		{[]string{"-d", "--log-level", "warn"}, nil, func(c *config) { c.logLevel = zapcore.WarnLevel }},
		{[]string{"--state-dir=/var/lib/x", "-socket", "/run/x.sock", "nodes"}, []string{"nodes"}, func(c *config) {
			c.stateDir, c.socket = "/var/lib/x", "/run/x.sock"
		}},
		{[]string{"--devices=", "--require-mac=", "forget", "--force", "n1"}, []string{"forget", "--force", "n1"}, func(c *config) {
			c.deviceNames, c.requireMAC = "", false
		}},
	} {
		want, err := configFrom(nil, environment)
		if err != nil {
			t.Fatal(err)
		}
		c.want(&want)
		flags, command, err := parseFlags(c.args)
		if err != nil || !slices.Equal(command, c.command) {
			t.Errorf("%q: the command is %q, error %v; want %q", c.args, command, err, c.command)
		}
		if got, err := configFrom(flags, environment); err != nil || got != want {
			t.Errorf("%q: got %+v, %v\nwant %+v", c.args, got, err, want)
		}
	}
}

// TestVersion: the version is printed, whatever else is given.
func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"-version", "-d"}, {"--log-level", "debug", "--version", "nodes"}} {
		if _, _, err := parseFlags(args); err != errVersion {
			t.Errorf("%q: %v", args, err)
		}
	}
	if got := buildText(); got != "driver unversioned, commit unknown of unknown\n" {
		t.Errorf("a build without flags of the linker is %q", got)
	}
}

func TestFlagRefusals(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--loud"}, "flag provided but not defined: -loud; driver --help lists the flags"},
		{[]string{"--socket"}, "flag needs an argument: -socket; driver --help lists the flags"},
		{[]string{"--log-level=loud"}, `flag: --log-level="loud": must be debug, info, warn or error`},
		{[]string{"--store", "etcd://root:hidden@n1:2379"}, `flag: --store="etcd://***@n1:2379": must be `},
	} {
		flags, _, err := parseFlags(c.args)
		if err == nil {
			_, err = configFrom(flags, env())
		}
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", c.args, err, c.want)
		}
	}
}

// TestHelp: --help has every setting with its flag, its variable, its default and its values, and every command.
func TestHelp(t *testing.T) {
	var b strings.Builder
	if err := writeHelp(&b); err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		want := fmt.Sprintf("\n  --%s VALUE, or %s=VALUE (default: %s)\n      %s\n      VALUE: %s\n",
			s.flag(), s.name, defaultText(s), s.help, s.allowed)
		if !strings.Contains(b.String(), want) {
			t.Errorf("the help lacks\n%s", want)
		}
	}
	for _, c := range commands {
		if !strings.Contains(b.String(), "\n  "+c.usage+" ") {
			t.Errorf("the help lacks the command %s", c.usage)
		}
	}
}

// TestManualSettings holds the table in docs/settings.md to the settings. With UPDATE=1 the page is brought up to date.
func TestManualSettings(t *testing.T) {
	var table strings.Builder
	table.WriteString("| variable | flag | default | allowed | meaning |\n|---|---|---|---|---|\n")
	for _, s := range settings {
		fmt.Fprintf(&table, "| `%s` | `--%s` | %s | %s | %s |\n", s.name, s.flag(), defaultText(s), s.allowed, s.help)
	}
	docs.Table(t, "../../docs/settings.md", "<!-- settings: made from cmd/driver/config.go -->\n", "<!-- end of settings -->\n", table.String())
}
