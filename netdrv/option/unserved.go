package option

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/libnetwork/netlabel"
)

// served are the labels of an endpoint that the engine itself obeys, or that this driver does (engine 28.5, libnetwork/netlabel/labels.go).
// The ports that an image exposes are for other containers to know.
var served = []string{
	netlabel.ExposedPorts,
	netlabel.MacAddress,
	netlabel.DNSServers,
	netlabel.Prefix + ".endpoint.name",
	netlabel.Prefix + ".endpoint.sysctls",
}

// labelIfname is a name for the device in the container, which engines from 28 on set for their own drivers only.
const labelIfname = netlabel.Prefix + ".endpoint.ifname"

// Unserved returns, in words, what the engine asks for with an endpoint and does not get: published ports and labels that neither the
// engine nor this driver obeys. The engine starts the container all the same, and tells its user nothing.
func Unserved(request map[string]any) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(request)) {
		name := strings.ToLower(key)
		switch {
		case !strings.HasPrefix(name, netlabel.Prefix+".") || slices.Contains(served, name) || strings.HasPrefix(name, netlabel.DriverPrivatePrefix):
		case name == netlabel.PortMap:
			if ports := publishedPorts(request[key]); ports != "" {
				all = append(all, "published ports "+ports+": the container has an address of its own on the NIC's network, and is reached there")
			}
		case name == labelIfname:
			all = append(all, fmt.Sprintf("%s=%.64s: the engine names the device of another driver by a prefix; say prefix=", key, fmt.Sprint(request[key])))
		default:
			all = append(all, fmt.Sprintf("%.64s=%.64s: unknown", key, fmt.Sprint(request[key])))
		}
	}
	return all
}

// publishedPorts returns the first ports of a port map, such as "8080 (tcp 80)", and how many more there are. Their form is
// [{"Proto":6,"Port":80,"HostPort":8080}]; a HostPort of 0 is any.
func publishedPorts(portMap any) string {
	const most = 8
	list, _ := portMap.([]any)
	var ports []string
	for _, item := range list[:min(len(list), most)] {
		port, _ := item.(map[string]any)
		on := fmt.Sprint(port["HostPort"])
		if on == "0" {
			on = "any"
		}
		ports = append(ports, fmt.Sprintf("%s (%s %v)", on, protocol(port["Proto"]), port["Port"]))
	}
	if more := len(list) - most; more > 0 {
		ports = append(ports, fmt.Sprintf("%d more", more))
	}
	return strings.Join(ports, ", ")
}

// protocol returns the name of an IP protocol (IANA, protocol numbers).
func protocol(number any) string {
	if name := map[string]string{"6": "tcp", "17": "udp", "132": "sctp"}[fmt.Sprint(number)]; name != "" {
		return name
	}
	return fmt.Sprintf("protocol %v", number)
}
