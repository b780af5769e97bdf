package option

import (
	"fmt"
	"strings"

	"github.com/docker/libnetwork/netlabel"
)

// Labels of an endpoint (engine 29.8, libnetwork/netlabel/labels.go) that docker/libnetwork does not have.
const (
	labelName    = netlabel.Prefix + ".endpoint.name"
	labelSysctls = netlabel.Prefix + ".endpoint.sysctls"
	// labelIfname is the exact name of the device in the container: the same as the option ifname, which is stronger. The engine leaves it
	// to the driver.
	labelIfname = netlabel.Prefix + ".endpoint.ifname"
	// labelNoProxy is one that the engine itself sends.
	labelNoProxy = netlabel.DriverPrivatePrefix + ".no_proxy_6to4"
)

// served are the labels of an endpoint that the engine itself obeys, by their exact names. The ports that an image exposes are for other
// containers to know; of those that are published the log tells, see [Unserved].
var served = []string{netlabel.ExposedPorts, netlabel.PortMap, netlabel.MacAddress, netlabel.DNSServers, labelName, labelSysctls, labelNoProxy}

// Unserved returns, in words, what the engine asks for with an endpoint and does not get: published ports. The engine starts the container
// all the same, and tells its user nothing.
func Unserved(request map[string]any) []string {
	ports := publishedPorts(request[netlabel.PortMap])
	if ports == "" {
		return nil
	}
	return []string{"published ports " + ports + ": the container has an address of its own on the NIC's network, and is reached there"}
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
