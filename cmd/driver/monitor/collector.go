package monitor

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// A collector reports what was observed.
type collector struct {
	sources  Sources
	observer *observer
}

// Describe implements [prometheus.Collector]. What the collector reports is in the table of metrics, but not all of it is reported each time.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range metricsOfCollector() {
		out <- m.desc()
	}
}

// metricsOfCollector are the rows of the table that no other collector reports.
func metricsOfCollector() []metric {
	var rows []metric
	for _, m := range metricTable {
		if m.kind != histogram && m.name != "store_errors_total" {
			rows = append(rows, m)
		}
	}
	return rows
}

// A scrape is one run of a collector.
type scrape struct {
	out        chan<- prometheus.Metric
	containers map[ipamdrv.Place]string
	pfs        map[string]string // names of PFs by their PCI addresses
}

// report reports one value of a metric.
func (s *scrape) report(name string, value float64, labels ...string) {
	m := row(name)
	kind := prometheus.GaugeValue
	if m.kind == counter {
		kind = prometheus.CounterValue
	}
	s.out <- prometheus.MustNewConstMetric(m.desc(), kind, value, labels...)
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	now := c.observer.observe(context.Background())
	s := &scrape{out: out, pfs: map[string]string{}}
	s.report("build_info", 1, c.sources.Version, runtime.Version())
	s.report("ready", number(c.sources.ready() == nil))
	for part, n := range now.failures {
		s.report("observation_errors_total", float64(n), part)
	}
	if file, err := os.Stat(c.sources.LedgerFile); err == nil {
		s.report("ledger_size_bytes", float64(file.Size()))
	}
	if c.sources.Decisions != nil {
		for decision, n := range c.sources.Decisions() {
			s.report("decisions_total", float64(n), decision)
		}
	}
	if !now.at.IsZero() {
		s.report("observation_age_seconds", max(0, time.Since(now.at).Seconds()))
	}
	if now.pools != nil {
		s.containers = now.pools.Containers
		s.pools(now.pools)
	}
	if now.devices != nil {
		s.devices(now.devices)
	}
}

// number returns 1 for true.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// short returns an ID as docker prints it: its first 12 characters.
func short(id string) string { return id[:min(len(id), 12)] }

// pools reports what the IPAM driver knows.
func (s *scrape) pools(o *ipamdrv.Observation) {
	s.report("store_away", number(o.Away != nil))
	s.report("owed_operations", float64(o.Owed))
	if o.Shared {
		s.report("pools_unread", float64(o.Unread))
	}
	for _, p := range o.Pools {
		s.pool(p)
	}
}

// pool reports one pool.
func (s *scrape) pool(p admin.Pool) {
	network := ""
	if len(p.Networks) == 1 {
		network = short(p.Networks[0])
	}
	busy := float64(p.Leased + p.Prefetched + p.Cooldown)
	for state, n := range map[string]float64{"leased": float64(p.Leased), "prefetched": float64(p.Prefetched), "cooldown": float64(p.Cooldown),
		"free": max(0, float64(p.Size)-busy)} {
		s.report("pool_addresses", n, p.ID, p.Subnet, p.Name, network, state)
	}
}

// devices reports what the network driver knows.
func (s *scrape) devices(o *metrics.Observation) {
	for mode, n := range o.Networks {
		s.report("networks", float64(n), mode)
	}
	for _, pf := range o.PFs {
		s.pfs[pf.PCI] = pf.Name
	}
	for _, l := range o.Links {
		s.link(l)
	}
	type kind struct{ mode, state string }
	count := map[kind]int{}
	held := map[string]map[int]metrics.Device{} // VFs that are not free, by PF and index
	for _, d := range o.Devices {
		count[kind{d.Mode, d.State}]++
		s.report("device_state_since_seconds", float64(d.Since.UnixMilli())/1000, s.labels(d)...)
		if d.PF != "" {
			if held[d.PF] == nil {
				held[d.PF] = map[int]metrics.Device{}
			}
			held[d.PF][d.VF] = d
		}
	}
	for k, n := range count {
		s.report("devices", float64(n), k.mode, k.state)
	}
	for _, pf := range o.PFs {
		s.pf(pf, held[pf.PCI])
	}
}

// container returns the name of the container that has a device, "" if it is not known.
func (s *scrape) container(d metrics.Device) string {
	for _, text := range d.Addresses {
		a, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		if name := s.containers[ipamdrv.Place{Network: d.Network, Addr: a.Addr()}]; name != "" {
			return name
		}
	}
	return ""
}

// labels returns the values of deviceLabels.
func (s *scrape) labels(d metrics.Device) []string {
	pf, vf := "", ""
	if d.PF != "" {
		pf, vf = s.pfName(d.PF), strconv.Itoa(d.VF)
	}
	return []string{d.ID, d.Label, d.Mode, d.State, pf, vf, short(d.Network), short(d.Endpoint), s.container(d), vlan(d)}
}

// pfName returns the name of a PF, or its PCI address if the PF was not found.
func (s *scrape) pfName(pci string) string {
	if name := s.pfs[pci]; name != "" {
		return name
	}
	return pci
}

// vlan returns the VLAN of a VF as a label, "" for none.
func vlan(d metrics.Device) string {
	if d.VLAN == 0 {
		return ""
	}
	return strconv.Itoa(d.VLAN)
}

// link reports a device in the host.
func (s *scrape) link(l metrics.Link) {
	s.report("link_up", number(l.Up), l.Name)
	s.report("link_carrier", number(l.Carrier), l.Name)
	if l.Counted {
		s.counters("link", l.Counters, []string{l.Name})
		s.report("link_receive_errors_total", float64(l.Counters.RxErrors), l.Name)
		s.report("link_transmit_errors_total", float64(l.Counters.TxErrors), l.Name)
		s.report("link_receive_missed_packets_total", float64(l.Counters.RxMissed), l.Name)
		s.report("link_transmit_timeouts_total", float64(l.Counters.TxTimeouts), l.Name)
	}
	if l.MaxRings != (hw.Rings{}) {
		for ring, n := range map[string][2]int{"rx": {l.Rings.Rx, l.MaxRings.Rx}, "tx": {l.Rings.Tx, l.MaxRings.Tx}} {
			s.report("link_ring_size", float64(n[0]), l.Name, ring)
			s.report("link_ring_size_max", float64(n[1]), l.Name, ring)
		}
	}
	if d := l.Driver; d.Name != "" {
		s.report("link_driver_info", 1, l.Name, d.Name, d.Version, d.Firmware)
	}
}

// counters reports the counters that both kinds of device have; kind begins the names of the metrics.
func (s *scrape) counters(kind string, c hw.Counters, labels []string) {
	s.report(kind+"_receive_bytes_total", float64(c.RxBytes), labels...)
	s.report(kind+"_transmit_bytes_total", float64(c.TxBytes), labels...)
	s.report(kind+"_receive_packets_total", float64(c.RxPackets), labels...)
	s.report(kind+"_transmit_packets_total", float64(c.TxPackets), labels...)
	s.report(kind+"_receive_multicast_packets_total", float64(c.RxMulticast), labels...)
	s.report(kind+"_receive_dropped_packets_total", float64(c.RxDropped), labels...)
	s.report(kind+"_transmit_dropped_packets_total", float64(c.TxDropped), labels...)
}

// pf reports the VFs of a PF. held has those that are not free, by their index.
func (s *scrape) pf(pf metrics.PF, held map[int]metrics.Device) {
	states := map[string]int{"free": pf.VFs}
	for index, d := range held {
		states[d.State]++
		if index < pf.VFs {
			states["free"]--
		}
	}
	for state, n := range states {
		s.report("vfs", float64(n), pf.Name, state)
	}
	for index, c := range pf.Counters {
		d := held[index]
		labels := []string{pf.Name, strconv.Itoa(index), short(d.Network), s.container(d), vlan(d)}
		s.counters("vf", c, labels)
		s.report("vf_receive_broadcast_packets_total", float64(c.RxBroadcast), labels...)
	}
}
