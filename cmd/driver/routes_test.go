package main

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/internal/admin"
)

// TestNoDrivers: without drivers the calls that an engine's start depends on are answered, and all others say why they fail.
func TestNoDrivers(t *testing.T) {
	r := start(t, quick(), routes(&drivers{err: errors.New("hardware: open: /sys: no such file")})...)
	for op, body := range map[string]string{
		"Plugin.Activate": "", "NetworkDriver.GetCapabilities": "", "IpamDriver.GetCapabilities": "", "IpamDriver.GetDefaultAddressSpaces": "",
		"NetworkDriver.GwAllocCheck": `{"Options":{"com.docker.network.generic":{"netdevice":"ens1f0"}}}`,
	} {
		if status, got := r.post(t, op, body); status != 200 || strings.Contains(got, "Err") {
			t.Errorf("%s: %d %s", op, status, got)
		}
	}
	for _, op := range []string{"NetworkDriver.CreateNetwork", "NetworkDriver.Join", "IpamDriver.RequestPool", "Passthrough.Counters"} {
		if status, got := r.post(t, op, "{}"); status != 500 || got != `{"Err":"hardware: open: /sys: no such file"}` {
			t.Errorf("%s: %d %s", op, status, got)
		}
	}
}

// TestLogLevel: the log level is changed while the plugin runs, also while the drivers could not be made, and a bad one changes nothing.
func TestLogLevel(t *testing.T) {
	level := zap.NewAtomicLevelAt(zapcore.InfoLevel)
	r := start(t, quick(), routes(&drivers{err: errors.New("hardware: open: /sys: no such file"), logLevel: level})...)
	for _, c := range []struct {
		request string
		status  int
		answer  string
		want    zapcore.Level
	}{
		{`{}`, 200, `{"level":"info"}`, zapcore.InfoLevel},
		{`{"level":"debug"}`, 200, `{"level":"debug"}`, zapcore.DebugLevel},
		{`{"level":"loud"}`, 400, errText(t, `log level "loud": must be debug, info, warn or error; nothing was changed`), zapcore.DebugLevel},
		{`{"level":"fatal"}`, 400, errText(t, `log level "fatal": must be debug, info, warn or error; nothing was changed`), zapcore.DebugLevel},
		{`{"level":"error"}`, 200, `{"level":"error"}`, zapcore.ErrorLevel},
	} {
		if status, got := r.post(t, admin.LogLevelCall, c.request); status != c.status || got != c.answer || level.Level() != c.want {
			t.Errorf("%s: %d %s, level %s; want %d %s, %s", c.request, status, got, level, c.status, c.answer, c.want)
		}
	}
}
