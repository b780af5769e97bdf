package main

import (
	"errors"
	"strings"
	"testing"
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
