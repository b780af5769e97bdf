package invariant

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mellanox/passthrough/test/harness/engineapi"
)

// Container is a container of the engine, with what is in its network namespace.
type Container struct {
	ID, Name  string
	Running   bool
	Error     string              // why the engine could not start it the last time; "" if it could
	PID       int                 // of its first process, while it runs
	Endpoints map[string]Attached // by the name of the network, while it runs
	Links     []Link              // without the loopback device
}

// Attached is what the engine says of a container on a network.
type Attached struct{ Network, Endpoint, Address, MAC string }

// Link is a network device in a container.
type Link struct {
	Name, Kind, MAC string
	PCI             string // "" for one that is no PCI function
	Up              bool
	Addrs           []string
}

// ReadDocker asks the engine of this machine what it knows of a plugin's things, and for its containers, all of them; it looks
// into the network namespaces of those that run. Addresses are those of networks with this IPAM driver, whatever their driver is.
func ReadDocker(plugin string) (*Engine, []Container, error) {
	d := docker{engineapi.Engine()}
	d.Timeout = 30 * time.Second
	defer d.CloseIdleConnections()
	networks, err := d.networks()
	if err != nil {
		return nil, nil, err
	}
	containers, err := d.containers()
	if err != nil {
		return nil, nil, err
	}
	e := &Engine{Addresses: []netip.Addr{}}
	for _, n := range networks {
		if n.Driver == plugin {
			e.Networks = append(e.Networks, n.ID)
		}
	}
	for _, c := range containers {
		for _, a := range c.Endpoints {
			i := slices.IndexFunc(networks, func(n dockerNetwork) bool { return n.ID == a.Network })
			if i < 0 {
				continue
			}
			if networks[i].Driver == plugin {
				e.Endpoints = append(e.Endpoints, a.Network+"/"+a.Endpoint)
			}
			if address, err := netip.ParseAddr(a.Address); err == nil && networks[i].IPAM.Driver == plugin {
				e.Addresses = append(e.Addresses, address)
			}
		}
	}
	return e, containers, nil
}

// docker is the engine, asked in the words that all engines understand.
type docker struct{ engineapi.Client }

// dockerNetwork is a network as the engine shows it.
type dockerNetwork struct {
	ID     string `json:"Id"`
	Driver string
	IPAM   struct{ Driver string }
}

// networks are all of the engine's.
func (d docker) networks() (all []dockerNetwork, err error) {
	err = d.Read("/networks", &all)
	return all, err
}

// containers are all of the engine's.
func (d docker) containers() ([]Container, error) {
	var ids []struct {
		ID string `json:"Id"`
	}
	if err := d.Read("/containers/json?all=1", &ids); err != nil {
		return nil, err
	}
	var all []Container
	for _, id := range ids {
		c, err := d.container(id.ID)
		if errors.Is(err, engineapi.ErrGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// container is one container.
func (d docker) container(id string) (Container, error) {
	var r struct {
		Name  string
		State struct {
			Running, Restarting bool
			Pid                 int
			Error               string
		}
		NetworkSettings struct {
			Networks map[string]struct{ NetworkID, EndpointID, IPAddress, MacAddress string }
		}
	}
	if err := d.Read("/containers/"+id+"/json", &r); err != nil {
		return Container{}, err
	}
	c := Container{ID: id, Name: strings.TrimPrefix(r.Name, "/"), Running: r.State.Running && !r.State.Restarting, PID: r.State.Pid,
		Error: r.State.Error, Endpoints: map[string]Attached{}}
	if !c.Running || c.PID == 0 {
		return c, nil // what one that has ended with its engine had is still shown, and is no more
	}
	for name, n := range r.NetworkSettings.Networks {
		if n.EndpointID != "" {
			c.Endpoints[name] = Attached{n.NetworkID, n.EndpointID, n.IPAddress, n.MacAddress}
		}
	}
	var err error
	if c.Links, err = linksOf(c.PID); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) { // it has ended meanwhile
			err = nil
		}
	}
	return c, err
}

// linksOf are the devices in a process's network namespace.
func linksOf(pid int) ([]Link, error) {
	out, err := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(pid)+"/ns/net", "ip", "-j", "-d", "addr", "show").Output()
	if err != nil {
		return nil, err
	}
	var all []struct {
		ipLink
		Parent string `json:"parentdev"`
		Addrs  []struct {
			Local string `json:"local"`
			Len   int    `json:"prefixlen"`
			Scope string `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	var links []Link
	for _, l := range all {
		if slices.Contains(l.Flags, "LOOPBACK") {
			continue
		}
		link := Link{Name: l.Name, Kind: l.Info.Kind, MAC: l.MAC, PCI: lastPCI(l.Parent), Up: slices.Contains(l.Flags, "UP")}
		for _, a := range l.Addrs {
			if a.Scope == "global" {
				link.Addrs = append(link.Addrs, a.Local)
			}
		}
		links = append(links, link)
	}
	return links, nil
}
