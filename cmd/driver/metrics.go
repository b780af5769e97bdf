package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/cmd/driver/monitor"
	"github.com/mellanox/passthrough/internal/retry"
)

// metricsOff is the value of METRICS that serves none.
const metricsOff = "off"

// unixPrefix begins a value of METRICS that is a socket's path.
const unixPrefix = "unix:"

// newMonitor returns a monitor if metrics are to be served, and nil otherwise.
func (c config) newMonitor() *monitor.Monitor {
	if c.metrics == "" || c.metrics == metricsOff {
		return nil
	}
	return monitor.New()
}

// isMetricsAddress returns true for an allowed value of METRICS.
func isMetricsAddress(v string) bool {
	if path, ok := strings.CutPrefix(v, unixPrefix); ok {
		return filepath.IsAbs(path) && len(path) <= socketPathMax
	}
	a, err := netip.ParseAddrPort(v)
	return v == metricsOff || err == nil && a.Port() != 0
}

// connectMonitor tells the monitor where the metrics come from.
func (d *drivers) connectMonitor(cfg config) {
	if d.monitor == nil {
		return
	}
	s := monitor.Sources{Version: version, LedgerFile: filepath.Join(cfg.stateDir, ledgerFile), Refused: d.err}
	if d.err == nil {
		s.Ready, s.Decisions, s.Devices, s.Pools = d.network.Ready, d.network.Decisions, d.network.Observe, d.ipam.Observe
	}
	d.monitor.Connect(s)
}

// listenAgain is how often an address of METRICS is tried that cannot be listened on: it may be that of a device that is still missing at boot.
const listenAgain = 30 * time.Second

// serveMetrics serves metrics until ctx ends. Nothing else depends on it: a failure is logged, and it is tried again.
func serveMetrics(ctx context.Context, address string, m *monitor.Monitor, log *zap.Logger) {
	if m == nil {
		return
	}
	for failed := false; ctx.Err() == nil; _ = retry.Sleep(ctx, listenAgain) {
		l, err := listenMetrics(address)
		if err == nil {
			log.Info("metrics are served", zap.String("address", address))
			failed = false
			err = m.Serve(ctx, l, log)
		}
		if ctx.Err() == nil && !failed {
			failed = true
			log.Warn("metrics are not served; the plugin works without them, and tries again", zap.Duration("every", listenAgain),
				zap.NamedError("err", fmt.Errorf("METRICS=%q: %w", address, err)))
		}
	}
}

// listenMetrics listens on the address of METRICS.
func listenMetrics(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return listen(path)
	}
	return net.Listen("tcp", address)
}
