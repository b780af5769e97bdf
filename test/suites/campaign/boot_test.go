//go:build lab

package campaign

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// service runs a command, then starts a second instance of the plugin, as a service for the second NIC.
const service = `(%s; mkdir -p /run/docker/plugins /disk/service
exec env SOCKET=/run/docker/plugins/second.sock STATE_DIR=/disk/service /disk/bundle/rootfs/driver) >/run/service.log 2>&1 &
echo $! >/run/service.pid
`

// TestBoot: after a power cut and a boot, containers on VFs, on a child and on a whole device run again with
// their addresses. This also holds if the NICs' driver is loaded after the engine, if a NIC has a new name, and if
// the plugin, as a service, starts last.
func TestBoot(t *testing.T) {
	prepare(t)
	t.Cleanup(func() {
		sh(t, "docker rm -f $(docker ps -aq) >/dev/null && docker network prune -f")
		boot(t, hostConfig)
		if err := powerCut(); err != nil { // so that each NIC has its original name again
			t.Error(err)
		}
	})
	const ours, asService = "-d " + Plugin + " --ipam-driver " + Plugin, "-d second --ipam-driver second"
	sh(t, fmt.Sprintf(service, "true")+`set -e
until [ -S /run/docker/plugins/second.sock ]; do sleep 0.1; done
docker network create `+ours+` --subnet 10.1.0.0/24 -o netdevice=enp1s0 -o vlan=10 vfs
docker network create `+ours+` --subnet 10.6.0.0/24 -o netdevice=enp1s0 -o mode=macvlan thin
docker network create `+ours+` --subnet 10.7.0.0/24 -o netdevice=enp3s0 -o mode=passthrough whole
docker network create `+asService+` --subnet 10.9.0.0/24 -o netdevice=enp2s0 -o numvfs=2 served
for i in 1 2 3 4 5; do docker run -d --name vf$i --restart=always --net vfs --ip 10.1.0.10$i lab sleep 1000000; done
docker run -d --name thin1 --restart=always --net thin --ip 10.6.0.101 lab sleep 1000000
docker run -d --name whole1 --restart=unless-stopped --net whole --ip 10.7.0.101 lab sleep 1000000
docker run -d --name served1 --restart=always --net served --ip 10.9.0.101 lab sleep 1000000
docker run -d --name never1 --net vfs --ip 10.1.0.110 lab sleep 1000000
cat >/disk/config <<'END'
`+hostConfig+`END
sync`)
	for _, b := range []struct{ name, config string }{
		{"the driver comes after the engine", fmt.Sprintf(service, "true") +
			"rmmod igbvf igb; (sleep 3; modprobe igb; udevadm settle; sh /disk/config) >/dev/null 2>&1 &\n"},
		{"a nic has another name, the service is last", fmt.Sprintf(service, "until pidof dockerd; do sleep 0.1; done; sleep 5") +
			"ip link set enp1s0 name nic7; sed s/enp1s0/nic7/ /disk/config | sh\n"},
	} {
		t.Run(b.name, func(t *testing.T) {
			boot(t, "#!/bin/sh\n"+b.config)
			if err := powerCut(); err != nil {
				t.Fatal(err)
			}
			backWithin(t, time.Minute)
			startsFast(t)
		})
	}
}

// wantedBack has the addresses of the containers that must run after the boot, by name.
var wantedBack = map[string]string{"vf1": "10.1.0.101", "vf2": "10.1.0.102", "vf3": "10.1.0.103", "vf4": "10.1.0.104",
	"vf5": "10.1.0.105", "thin1": "10.6.0.101", "whole1": "10.7.0.101", "served1": "10.9.0.101"}

// backWithin waits until every container runs with its address on a device that is up, and one reaches another.
func backWithin(t *testing.T, bound time.Duration) {
	t.Helper()
	var v *view
	Within(t, bound, func() string {
		var err error
		if v, err = look(); err != nil {
			return err.Error()
		}
		delete(v.Host.PFs, pciOf(nic2)) // used by the service, which has its own ledger
		problems := invariant.Facts{Ledger: v.Ledger, Host: v.Host, Engine: v.Engine}.Violations()
		for name, address := range wantedBack {
			if why := hasAddress(v.seen(name), address); why != "" {
				problems = append(problems, name+" "+why)
			}
		}
		if never := v.seen("never1"); never == nil || never.Running {
			problems = append(problems, "never1 was started, although it has no restart policy")
		}
		slices.Sort(problems)
		return strings.Join(problems, "\n")
	})
	Within(t, 20*time.Second, func() string {
		if _, err := docker("exec", "vf1", "ping", "-c1", "-W1", wantedBack["vf5"]); err != nil {
			return "vf1 does not reach vf5: " + err.Error()
		}
		return ""
	})
}

// hasAddress returns why a container does not run with an address; "" if it does.
func hasAddress(seen *invariant.Container, address string) string {
	switch {
	case seen == nil:
		return "is not there"
	case !seen.Running:
		return fmt.Sprintf("does not run; the engine says %q", seen.Error)
	case !slices.ContainsFunc(seen.Links, func(l invariant.Link) bool { return l.Up && slices.Contains(l.Addrs, address) }):
		return fmt.Sprintf("has %+v, want %s", seen.Links, address)
	}
	return ""
}

// startsFast checks that the plugin listens within a second of its start, because a starting engine waits for each plugin.
// It runs without a container here: creating one takes long on an emulated processor.
func startsFast(t *testing.T) {
	t.Helper()
	out := sh(t, `read -r begun _ </proc/uptime
SOCKET=/run/startsFast.sock STATE_DIR=/run/startsFast /disk/bundle/rootfs/driver >/dev/null & p=$!
until [ -S /run/startsFast.sock ]; do sleep 0.01; done
read -r bound _ </proc/uptime; kill $p; rm -r /run/startsFast
awk "BEGIN {print $bound - $begun}"`)
	took, err := strconv.ParseFloat(out, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the plugin listened after %.2f s", took)
	if took > 1 {
		t.Errorf("the plugin listened after %.2f s", took)
	}
}
