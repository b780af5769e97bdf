package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/ipamdrv"
)

// config has all settings of the environment.
type config struct {
	logLevel       zapcore.Level
	stateDir       string
	socket         string
	handlerTimeout time.Duration
	deviceNames    string // see parseDevices
	store          string // the store of pools and leases, see parseStore
	requireMAC     bool
	defaultPools   string // see ipamdrv.ParseDefaultPools
	refusal        error  // why a setting of the right form is refused, while the settings are read
}

// A setting is one variable of the environment.
//
// The defaults are here and not only in plugin/config.json, because an upgrade of the plugin keeps the variables of the old version:
// a new variable is unset.
type setting struct {
	name      string
	byDefault string
	allowed   string // the allowed values; follows "must be" in the error
	set       func(c *config, value string) (ok bool)
}

// socketPathMax is the longest path of a unix socket, in bytes: sun_path holds 108 with the final zero.
const socketPathMax = 107

// settings is the table of all variables. plugin/config.json and the systemd unit are held to it by a test.
var settings = []setting{
	{"LOG_LEVEL", "info", "debug, info, warn or error", func(c *config, v string) bool {
		level, err := zapcore.ParseLevel(v)
		c.logLevel = level
		return err == nil && level <= zapcore.ErrorLevel
	}},
	{"STATE_DIR", "/data", "an absolute path", func(c *config, v string) bool {
		c.stateDir = filepath.Clean(v)
		return filepath.IsAbs(v)
	}},
	{"SOCKET", "/run/docker/plugins/passthrough.sock", "an absolute path of at most 107 bytes",
		func(c *config, v string) bool {
			c.socket = filepath.Clean(v)
			return filepath.IsAbs(v) && len(c.socket) <= socketPathMax
		}},
	// The upper bound is below what an engine waits for an answer by default, 30 s (docker plugin enable --timeout): it retries a call that
	// takes longer with an empty body, and the result is lost.
	{"HANDLER_TIMEOUT", "10s", "a duration from 1s to 25s", func(c *config, v string) (ok bool) {
		c.handlerTimeout, ok = number.ParseDuration(v, time.Second, 25*time.Second)
		return ok
	}},
	{"DEVICES", "", "NAME=DEVICE,DEVICE... with ; between names", func(c *config, v string) bool {
		_, err := parseDevices(v)
		c.deviceNames = v
		return err == nil
	}},
	{"STORE", storeBolt, "bolt or etcd://HOST:PORT,HOST:PORT...?prefix=/PREFIX&ca=FILE&cert=FILE&key=FILE&user=NAME" +
		"&password-file=FILE&insecure=yes", func(c *config, v string) bool {
		etcd, err := parseStore(v, c.stateDir)
		if c.store = v; etcd != nil {
			c.refusal = err
		}
		return err == nil
	}},
	{"DEFAULT_POOLS", "", "subnets such as 10.200.0.0/16:24,fd00:200::/48:64", func(c *config, v string) bool {
		_, err := ipamdrv.ParseDefaultPools(v)
		c.defaultPools = v
		return err == nil
	}},
	{"REQUIRE_MAC", "false", "true or false", func(c *config, v string) bool {
		c.requireMAC = v == "true"
		return c.requireMAC || v == "false"
	}},
}

// configFrom reads all settings; an empty variable counts as unset. The error names all bad variables.
func configFrom(getenv func(name string) string) (config, error) {
	var c config
	var bad []error
	for _, s := range settings {
		value := getenv(s.name)
		if value == "" {
			value = s.byDefault
		}
		if !s.set(&c, value) {
			err := fmt.Errorf("environment: %s=%q: must be %s", s.name, withoutPassword(value), s.allowed)
			if c.refusal != nil {
				err, c.refusal = fmt.Errorf("environment: %s=%q: %w", s.name, withoutPassword(value), c.refusal), nil
			}
			bad = append(bad, err)
		}
	}
	return c, errors.Join(bad...)
}
