package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

// env is an environment made of pairs "NAME=value".
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == name {
				return v
			}
		}
		return ""
	}
}

func TestConfigDefaults(t *testing.T) {
	want := config{
		logLevel: zapcore.InfoLevel, logFormat: logText, stateDir: "/data", socket: "/run/docker/plugins/passthrough.sock",
		handlerTimeout: 10 * time.Second, store: "bolt", metrics: metricsOff,
	}
	for _, e := range []func(string) string{env(), env("LOG_LEVEL=", "STATE_DIR=", "SOCKET=", "HANDLER_TIMEOUT=")} {
		if got, err := configFrom(nil, e); err != nil || got != want {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
}

func TestConfigValues(t *testing.T) {
	got, err := configFrom(nil, env("LOG_LEVEL=debug", "LOG_FORMAT=json", "STATE_DIR=/var/lib/x/", "SOCKET=/run/x.sock", "HANDLER_TIMEOUT=1500ms",
		"REQUIRE_MAC=true", "DEFAULT_POOLS=10.200.0.0/16:24", "METRICS=unix:/run/m.sock"))
	want := config{
		logLevel: zapcore.DebugLevel, logFormat: logJSON, stateDir: "/var/lib/x", socket: "/run/x.sock", handlerTimeout: 1500 * time.Millisecond,
		store:      "bolt",
		metrics:    "unix:/run/m.sock",
		requireMAC: true, defaultPools: "10.200.0.0/16:24",
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestConfigRefusals(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	for _, c := range []struct{ pair, want string }{
		{"STATE_DIR=data", `environment: STATE_DIR="data": must be an absolute path`},
		{"SOCKET=p.sock", `environment: SOCKET="p.sock": must be an absolute path of at most 107 bytes`},
		{"SOCKET=" + long, `environment: SOCKET="` + long + `": must be an absolute path of at most 107 bytes`},
		{"HANDLER_TIMEOUT=10", `environment: HANDLER_TIMEOUT="10": must be a duration from 1s to 25s`},
		{"HANDLER_TIMEOUT=+10s", `environment: HANDLER_TIMEOUT="+10s": must be a duration from 1s to 25s`},
		{"HANDLER_TIMEOUT=0s", `environment: HANDLER_TIMEOUT="0s": must be a duration from 1s to 25s`},
		{"HANDLER_TIMEOUT=26s", `environment: HANDLER_TIMEOUT="26s": must be a duration from 1s to 25s`},
		{"REQUIRE_MAC=yes", `environment: REQUIRE_MAC="yes": must be true or false`},
		{"DEFAULT_POOLS=10.0.0.0/8", `environment: DEFAULT_POOLS="10.0.0.0/8": must be subnets such as ` +
			`10.200.0.0/16:24,fd00:200::/48:64`},
		{"DEVICES=fabric", `environment: DEVICES="fabric": must be NAME=DEVICE,DEVICE... with ; between names`},
	} {
		if _, err := configFrom(nil, env(c.pair)); err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.pair, err, c.want)
		}
	}
	_, err := configFrom(nil, env("HANDLER_TIMEOUT=1h", "STATE_DIR=data"))
	if err == nil || !strings.Contains(err.Error(), "HANDLER_TIMEOUT") || !strings.Contains(err.Error(), "STATE_DIR") {
		t.Errorf("two bad variables: got %v, want both named", err)
	}
}

// TestHarmlessSettings: a bad log level in the environment has its default, and is reported; a bad flag is refused.
func TestHarmlessSettings(t *testing.T) {
	for _, level := range []string{"loud", "fatal", "Debug "} {
		c, err := configFrom(nil, env("LOG_LEVEL="+level))
		want := fmt.Sprintf("environment: LOG_LEVEL=%q: must be debug, info, warn or error", level)
		if err != nil || c.logLevel != zapcore.InfoLevel || c.ignored == nil || c.ignored.Error() != want {
			t.Errorf("LOG_LEVEL=%s: level %v, ignored %v, %v", level, c.logLevel, c.ignored, err)
		}
		if _, err := configFrom(map[string]string{"LOG_LEVEL": level}, env()); err == nil {
			t.Errorf("the flag --log-level %s is not refused", level)
		}
	}
	for _, address := range []string{"on", ":9877", "localhost:9877", "127.0.0.1", "127.0.0.1:0", "unix:m.sock", "unix:/" + strings.Repeat("x", 107)} {
		c, err := configFrom(nil, env("METRICS="+address))
		if err != nil || c.metrics != metricsOff || c.ignored == nil {
			t.Errorf("METRICS=%s: %s, ignored %v, %v", address, c.metrics, c.ignored, err)
		}
	}
	for _, address := range []string{"127.0.0.1:9877", "[::1]:9877", "0.0.0.0:9877", "unix:/run/m.sock"} {
		if c, err := configFrom(nil, env("METRICS="+address)); err != nil || c.metrics != address || c.ignored != nil {
			t.Errorf("METRICS=%s: %s, ignored %v, %v", address, c.metrics, c.ignored, err)
		}
	}
	c, err := configFrom(nil, env("LOG_FORMAT=xml"))
	if err != nil || c.logFormat != logText || c.ignored == nil || c.ignored.Error() != `environment: LOG_FORMAT="xml": must be text or json` {
		t.Errorf("LOG_FORMAT=xml: format %s, ignored %v, %v", c.logFormat, c.ignored, err)
	}
}

// TestShownSettings: operators see each setting with its value, and no password, also of a value that is refused.
func TestShownSettings(t *testing.T) {
	got := shownSettings(map[string]string{"DHCP": "true"}, env("STORE=etcd://u:hunter2@n1:2379?password=hunter2", "LOG_LEVEL=", "DHCP=false"))
	if len(got) != len(settings) {
		t.Errorf("%d settings are shown of %d", len(got), len(settings))
	}
	for name, want := range map[string]string{"STORE": "etcd://***@n1:2379?password=***", "LOG_LEVEL": "info", "DHCP": "true"} {
		if got[name] != want {
			t.Errorf("%s is shown as %q, want %q", name, got[name], want)
		}
	}
}
