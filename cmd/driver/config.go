package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/ipamdrv"
)

// config has all settings.
type config struct {
	logLevel       zapcore.Level
	logFormat      string // logText or logJSON
	stateDir       string
	cdiDir         string // "" for none
	socket         string
	handlerTimeout time.Duration
	deviceNames    string // see parseDevices
	store          string // the store of pools and leases, see parseStore
	requireMAC     bool
	dhcp           bool   // lets pools have the option dhcp, see dropPrivileges
	defaultPools   string // see ipamdrv.ParseDefaultPools
	metrics        string // see listenMetrics; metricsOff for none
	refusal        error  // why a setting of the right form is refused, while the settings are read
	ignored        error  // bad values that were replaced by their defaults, nil for none
}

// A setting is one variable of the environment and one flag: LOG_LEVEL is --log-level. A flag overrides its variable.
//
// The defaults are here and not only in plugin/config.json, because an upgrade of the plugin keeps the variables of the old version:
// a new variable is unset.
type setting struct {
	name      string
	byDefault string
	allowed   string // the allowed values; follows "must be" in the error
	help      string // what it does, for --help and docs/settings.md
	set       func(c *config, value string) (ok bool)

	// harmless: a bad value in the environment is replaced by the default, because no container depends on it.
	harmless bool
}

// socketPathMax is the longest path of a unix socket, in bytes: sun_path holds 108 with the final zero.
const socketPathMax = 107

// settings is the table of all settings. --help and the table of docs/settings.md are made from it; plugin/config.json and the systemd
// unit are held to it by a test.
var settings = []setting{
	{"LOG_LEVEL", "info", "debug, info, warn or error", "what is logged. debug adds each call, with a line that has the " +
		"whole request and response: options, addresses, names of containers", func(c *config, v string) bool {
		level, err := zapcore.ParseLevel(v)
		c.logLevel = level
		return err == nil && level <= zapcore.ErrorLevel
	}, true},
	{"LOG_FORMAT", logText, "text or json", "text: lines for people, warnings and errors on stderr. json: one JSON object per line, all on stdout",
		func(c *config, v string) bool {
			c.logFormat = v
			return v == logText || v == logJSON
		}, true},
	{"STATE_DIR", "/data", "an absolute path", "the state directory: records of networks, devices and addresses", func(c *config, v string) bool {
		c.stateDir = filepath.Clean(v)
		return filepath.IsAbs(v)
	}, false},
	{"CDI_DIR", "", "an absolute path", "a folder of the engine for CDI specs, for networks with the option cdi", func(c *config, v string) bool {
		c.cdiDir = v
		return v == "" || filepath.IsAbs(v)
	}, false},
	{"SOCKET", "/run/docker/plugins/passthrough.sock", "an absolute path of at most 107 bytes",
		"the socket on which the plugin listens; the engine names a plugin after its socket", func(c *config, v string) bool {
			c.socket = filepath.Clean(v)
			return filepath.IsAbs(v) && len(c.socket) <= socketPathMax
		}, false},
	// The upper bound is below what an engine waits for an answer by default, 30 s (docker plugin enable --timeout): it retries a call that
	// takes longer with an empty body, and the result is lost.
	{"HANDLER_TIMEOUT", "10s", "a duration from 1s to 25s", "time limit of a call; twice that, at most 25s, for creating a network, which may create VFs, and for the calls of a container's start. Raise it if a NIC's driver is loaded more than 16 s " +
		"after the engine starts at boot", func(c *config, v string) (ok bool) {
		c.handlerTimeout, ok = number.ParseDuration(v, time.Second, longest)
		return ok
	}, false},
	{"DEVICES", "", "NAME=DEVICE,DEVICE... with ; between names", "names for devices of this machine, for the option netdevice of a " +
		"network", func(c *config, v string) bool {
		_, err := parseDevices(v)
		c.deviceNames = v
		return err == nil
	}, false},
	{"STORE", storeBolt, "bolt, https://HOST:PORT?ca=FILE&cert=FILE&key=FILE&token-file=FILE or " +
		"etcd://HOST:PORT,HOST:PORT...?prefix=/PREFIX&ca=FILE&cert=FILE&key=FILE&user=NAME&password-file=FILE&insecure=yes", "where pools and " +
		"addresses are stored: bolt, a file of this node, or an etcd that several nodes share. https: as bolt, with the addresses of an IPAM server", func(c *config, v string) bool {
		etcd, err := parseStore(v, c.stateDir)
		if c.store = v; etcd != nil || strings.HasPrefix(v, schemeRemote) {
			c.refusal = err
		}
		return err == nil
	}, false},
	{"DEFAULT_POOLS", "", "subnets such as 10.200.0.0/16:24,fd00:200::/48:64", "where networks without --subnet get theirs: of each subnet the " +
		"next /24 or /64 that is free", func(c *config, v string) bool {
		_, err := ipamdrv.ParseDefaultPools(v)
		c.defaultPools = v
		return err == nil
	}, false},
	{"REQUIRE_MAC", "false", "true or false", "true: the engine passes the MAC of each device to the IPAM driver, for sticky addresses by MAC. It " +
		"then generates a MAC for every device without --mac-address and sets it, on physical devices too", func(c *config, v string) bool {
		c.requireMAC = v == "true"
		return c.requireMAC || v == "false"
	}, false},
	{"DHCP", "false", "true or false", "true: pools can have the option dhcp. The plugin then keeps a second capability, CAP_NET_BIND_SERVICE, " +
		"because DHCP servers answer to UDP port 67", func(c *config, v string) bool {
		c.dhcp = v == "true"
		return c.dhcp || v == "false"
	}, false},
	{"METRICS", metricsOff, "off, IP:PORT such as 127.0.0.1:9877, or unix:/PATH", "where the plugin serves metrics for Prometheus, and whether it is " +
		"ready. Who can connect sees IDs and names of containers", func(c *config, v string) bool {
		c.metrics = v
		return isMetricsAddress(v)
	}, true},
}

// configFrom reads all settings, each from its flag if that was given and otherwise from its variable; an empty value counts as unset.
// The error names all bad values. With an error the settings with bad values have their defaults.
func configFrom(flags map[string]string, getenv func(name string) string) (config, error) {
	var c config
	var bad []error
	for _, s := range settings {
		value, from := s.value(flags, getenv)
		if s.set(&c, value) {
			continue
		}
		err := fmt.Errorf("%s=%q: must be %s", from, withoutPassword(value), s.allowed)
		if c.refusal != nil {
			err, c.refusal = fmt.Errorf("%s=%q: %w", from, withoutPassword(value), c.refusal), nil
		}
		s.set(&c, s.byDefault)
		if _, flag := flags[s.name]; s.harmless && !flag {
			c.ignored = errors.Join(c.ignored, err)
			continue
		}
		bad = append(bad, err)
	}
	return c, errors.Join(bad...)
}

// value returns the value of a setting, its default if it is not given, and where it is from.
func (s setting) value(flags map[string]string, getenv func(name string) string) (value, from string) {
	value, from = getenv(s.name), "environment: "+s.name
	if given, ok := flags[s.name]; ok {
		value, from = given, "flag: --"+s.flag()
	}
	return cmp.Or(value, s.byDefault), from
}

// shownSettings returns the values of all settings, allowed or not, with passwords replaced.
func shownSettings(flags map[string]string, getenv func(name string) string) map[string]string {
	shown := map[string]string{}
	for _, s := range settings {
		value, _ := s.value(flags, getenv)
		shown[s.name] = withoutPassword(value)
	}
	return shown
}
