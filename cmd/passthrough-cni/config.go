package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/mellanox/passthrough/internal/admin"
)

// A config is what a network's configuration, the runtime and CNI_ARGS say.
type config struct {
	types.PluginConf
	Socket string `json:"socket"` // of the plugin process; "" for the one that is found
	// RuntimeConfig is what the runtime chose for this attachment. Addresses in it are for the IPAM plugin.
	RuntimeConfig struct {
		MAC      string `json:"mac"`
		DeviceID string `json:"deviceID"`
	} `json:"runtimeConfig"`
	DeviceID string `json:"deviceID"` // PCI address of a VF
	// Attachments is another name that the specification has had for ValidAttachments.
	Attachments []types.GCAttachment `json:"cni.dev/attachments"`

	options map[string]string // of the network
	own     map[string]string // of this attachment
	pod     string            // name for people; "" if it is not known

	pools     *admin.IPAM    // of which the process chooses addresses; nil: it does not
	requested []string       // addresses of pools
	routes    []*types.Route // with pools
}

// handled are the keys of a configuration that are no options of ours.
var handled = []string{"cniVersion", "name", "type", "capabilities", "ipam", "dns", "prevResult", "socket",
	"runtimeConfig", "deviceID", "args", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "logLevel", "logFile"}

// synonyms are the options that sriov-cni has other names for.
var synonyms = map[string]string{"master": "netdevice", "vlanQoS": "vlan_qos", "vlanProto": "vlan_proto"}

// ofAttachment are the options that only an attachment can have.
var ofAttachment = []string{"vf", "mac", "guid", "sticky"}

// args are the names in CNI_ARGS that mean something here, with the options that they are.
var args = map[string]string{"vf": "vf", "vlan": "vlan", "mac": "mac", "MAC": "mac", "CORES": "cores"}

// parse reads a configuration. Of a key that is there several times as text, number or truth value, the process refuses what it does not know.
func parse(stdin []byte, cniArgs string) (*config, error) {
	c := &config{options: map[string]string{}, own: map[string]string{}}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, invalid("%v", err)
	}
	if c.Name == "" {
		return nil, invalid("the configuration has no name")
	}
	var all map[string]any
	numbers := json.NewDecoder(bytes.NewReader(stdin))
	numbers.UseNumber() // as they are written: the process refuses what it does not accept as an option
	if err := numbers.Decode(&all); err != nil {
		return nil, invalid("%v", err)
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(handled, key) || strings.HasPrefix(key, "cni.dev/") { // those belong to the specification
			continue
		}
		value, err := text(all[key])
		if err != nil {
			return nil, invalid("key %s: %v", key, err)
		}
		name := key
		if synonym := synonyms[key]; synonym != "" {
			name = synonym
		}
		to := c.options
		if slices.Contains(ofAttachment, name) {
			to = c.own
		}
		if _, given := to[name]; given {
			return nil, invalid("key %s: %s is there as well", key, name)
		}
		to[name] = value
	}
	given, err := c.takeArgs(cniArgs)
	if err != nil {
		return nil, err
	}
	if err := c.takeIPAM(stdin, all["ipam"], given); err != nil {
		return nil, err
	}
	return c, c.takeRuntime()
}

// text returns a value of JSON as the value of an option.
func text(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v], nil
	case json.Number:
		return v.String(), nil
	case []any:
		var all []string
		for _, of := range v {
			one, err := text(of)
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, ","), nil
	}
	return "", fmt.Errorf("must be a text, a number, true, false, or a list of these")
}

// takeArgs takes CNI_ARGS: NAME=VALUE;NAME=VALUE. What is not known is an error, unless IgnoreUnknown is there. PodID, and what Kubernetes
// calls a pod, name the container; HostIP is the machine that a pod is on, and this plugin's devices are on one machine alone. IP is for
// the IPAM plugin.
func (c *config) takeArgs(cniArgs string) (map[string]string, error) {
	given := map[string]string{}
	for _, pair := range strings.Split(cniArgs, ";") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, invalid("CNI_ARGS: %q is not NAME=VALUE", pair)
		}
		given[name] = value
	}
	ignore := slices.Contains([]string{"1", "true"}, strings.ToLower(given["IgnoreUnknown"]))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch option := args[name]; {
		case option != "":
			c.own[option] = given[name]
		case slices.Contains([]string{"IgnoreUnknown", "PodID", "HostIP", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"}, name), ignore:
		case name == "IP" && c.IPAM.Type != "":
		default:
			return nil, invalid("CNI_ARGS: %s is not known; the names are CORES, HostIP, IP with ipam, IgnoreUnknown, PodID, mac, vf and vlan", name)
		}
	}
	if c.pod = given["PodID"]; c.pod == "" && given["K8S_POD_NAME"] != "" {
		c.pod = strings.TrimPrefix(given["K8S_POD_NAMESPACE"]+"/"+given["K8S_POD_NAME"], "/")
	}
	return given, nil
}

// takeRuntime takes what the runtime has chosen for the attachment: a MAC, or a VF, whose PF is the network's device unless one is named.
func (c *config) takeRuntime() error {
	if c.RuntimeConfig.MAC != "" {
		c.own["mac"] = c.RuntimeConfig.MAC
	}
	id := c.DeviceID
	if c.RuntimeConfig.DeviceID != "" {
		id = c.RuntimeConfig.DeviceID
	}
	if id == "" {
		return nil
	}
	if c.own["vf"] != "" && c.own["vf"] != id {
		return invalid("vf %s is not the deviceID %s", c.own["vf"], id)
	}
	c.own["vf"] = id
	if c.options["netdevice"] != "" {
		return nil
	}
	pf, err := os.Readlink(filepath.Join("/sys/bus/pci/devices", filepath.Base(id), "physfn"))
	if err != nil {
		return invalid("deviceID %s: is not a vf of this machine; without one, master names the device", id)
	}
	c.options["netdevice"] = filepath.Base(pf)
	return nil
}

// invalid returns the error of a configuration that cannot be used.
func invalid(format string, a ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "passthrough-cni: "+fmt.Sprintf(format, a...), "")
}
