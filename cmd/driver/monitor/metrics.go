package monitor

import "github.com/prometheus/client_golang/prometheus"

// A metric is a row of the table of metrics.
type metric struct {
	name   string // without the prefix
	kind   string // gauge, counter or histogram
	unit   string
	labels []string
	help   string
}

// prefix is that of the names of all metrics of the plugin.
const prefix = "passthrough_"

// kinds of metrics.
const (
	gauge     = "gauge"
	counter   = "counter"
	histogram = "histogram"
)

// The labels of several metrics.
var (
	vfLabels     = []string{"pf", "vf", "network", "container", "vlan"}
	deviceLabels = []string{"device", "label", "mode", "state", "pf", "vf", "network", "endpoint", "container", "vlan"}
	linkLabels   = []string{"device"}
	ringLabels   = []string{"device", "ring"}
)

// metricTable is the table of all metrics of the plugin; docs/metrics.md is made from it, and a metric that is not in it cannot be reported.
var metricTable = []metric{
	{"build_info", gauge, "", []string{"version", "goversion"}, "always 1"},
	{"ready", gauge, "", nil, "1 once the ledger was read and compared with the kernel, otherwise 0; as /readyz"},
	{"observation_age_seconds", gauge, "seconds", nil, "how old what is said of networks, devices and pools is: more than 0 if ledger or kernel did " +
		"not answer in time"},
	{"observation_errors_total", counter, "", []string{"part"}, "failures to observe a part: devices, pools or vf_counters"},

	{"call_duration_seconds", histogram, "seconds", []string{"op", "outcome"}, "how long calls of the engine and of operators took. outcome: ok, error, " +
		"refused, panic, deadline or gone, as in the log"},
	{"decisions_total", counter, "", []string{"decision"}, "decisions of the driver, as the hourly line of the log has them: " +
		"devices_claimed to _quarantined, orphans, tried_again, left_alone and others"},

	{"networks", gauge, "", []string{"mode"}, "networks on this machine"},
	{"devices", gauge, "", []string{"mode", "state"}, "devices that are not free. state: claimed, ready, lent, freeing or quarantined"},
	{"device_state_since_seconds", gauge, "unix time", deviceLabels, "when a device that is not free got into its state. device: its PCI address or other " +
		"identity; label: what messages call it; network and endpoint: the first 12 characters of their IDs"},
	{"vfs", gauge, "", []string{"pf", "state"}, "VFs of a PF. state: free, or one of those of devices"},

	{"vf_receive_bytes_total", counter, "bytes", vfLabels, "received by a VF, as its PF counts"},
	{"vf_transmit_bytes_total", counter, "bytes", vfLabels, "sent by a VF"},
	{"vf_receive_packets_total", counter, "packets", vfLabels, "received by a VF"},
	{"vf_transmit_packets_total", counter, "packets", vfLabels, "sent by a VF"},
	{"vf_receive_broadcast_packets_total", counter, "packets", vfLabels, "broadcasts received by a VF"},
	{"vf_receive_multicast_packets_total", counter, "packets", vfLabels, "multicasts received by a VF"},
	{"vf_receive_dropped_packets_total", counter, "packets", vfLabels, "dropped on the way to a VF"},
	{"vf_transmit_dropped_packets_total", counter, "packets", vfLabels, "dropped on the way from a VF"},

	{"link_up", gauge, "", linkLabels, "1 if a device of a network that is in the host is up"},
	{"link_carrier", gauge, "", linkLabels, "1 if it has carrier"},
	{"link_receive_bytes_total", counter, "bytes", linkLabels, "received by it"},
	{"link_transmit_bytes_total", counter, "bytes", linkLabels, "sent by it"},
	{"link_receive_packets_total", counter, "packets", linkLabels, "received by it"},
	{"link_transmit_packets_total", counter, "packets", linkLabels, "sent by it"},
	{"link_receive_multicast_packets_total", counter, "packets", linkLabels, "multicasts received by it"},
	{"link_receive_dropped_packets_total", counter, "packets", linkLabels, "dropped on receipt"},
	{"link_transmit_dropped_packets_total", counter, "packets", linkLabels, "dropped on sending"},
	{"link_receive_errors_total", counter, "packets", linkLabels, "received with an error"},
	{"link_transmit_errors_total", counter, "packets", linkLabels, "not sent for an error"},

	{"link_receive_missed_packets_total", counter, "packets", linkLabels, "lost because the device had no buffer for them: larger rings (`ring_rx`) or more " +
		"queues may help"},
	{"link_transmit_timeouts_total", counter, "", linkLabels, "how often a transmit queue stood still, and the driver reset it"},
	{"link_ring_size", gauge, "packets", ringLabels, "size of a ring; ring: rx or tx"},
	{"link_ring_size_max", gauge, "packets", ringLabels, "how large the ring can be"},
	{"link_driver_info", gauge, "", []string{"device", "driver", "version", "firmware"}, "always 1; what the device's driver says of itself"},

	{"pool_addresses", gauge, "", []string{"pool", "subnet", "name", "network", "state"}, "addresses of a pool. state: leased, prefetched, cooldown or " +
		"free. name: of a shared pool. network: the first 12 characters of its ID, empty if there are several"},
	{"pools_unread", gauge, "", nil, "pools that are left out because no request has used them since the plugin was started, or because a request " +
		"uses them just now; only with a store that nodes share"},

	{"store_request_duration_seconds", histogram, "seconds", []string{"store", "op"}, "how long requests to a store took. store: ledger, this node's own, " +
		"or shared; op: get, range or txn"},
	{"store_errors_total", counter, "", []string{"store", "op"}, "requests to a store that failed"},
	{"store_away", gauge, "", nil, "1 while the store that nodes share, or the IPAM server, is unavailable; 0 without one"},
	{"owed_operations", gauge, "", nil, "releases and other operations that the node will send to the store as soon as it is available"},
	{"ledger_size_bytes", gauge, "bytes", nil, "size of the file of the ledger"},
}

// durations are the bounds of the histograms, in seconds: an engine gives up after 30.
var durations = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// row returns the row of a metric. It panics if there is none, which a test shows.
func row(name string) metric {
	for _, m := range metricTable {
		if m.name == name {
			return m
		}
	}
	panic("no metric " + name)
}

// desc describes a metric to Prometheus.
func (m metric) desc() *prometheus.Desc {
	return prometheus.NewDesc(prefix+m.name, m.help, m.labels, nil)
}
