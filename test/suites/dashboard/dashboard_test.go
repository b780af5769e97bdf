//go:build lab

package dashboard

import (
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/promtest"
)

// lab runs scripts/lab for the guest, which must succeed.
func lab(t *testing.T, args ...string) string {
	t.Helper()
	return Run(t, repository+"scripts/lab", append([]string{"--guest", "dashboard"}, args...)...)
}

// run is what happens in the guest, and when: seconds since the beginning. What takes longer delays what comes after it.
var run = []struct {
	at    int
	lines string
}{
	{20, `docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet 194.168.1.0/28 --ipam-opt quarantine=60s \
-o netdevice=enp1s0 -o vlan=100 customer1
docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet 194.168.1.0/24 -o netdevice=enp1s0 -o vlan=200 customer2
docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet 10.6.0.0/24 -o netdevice=enp1s0 plain
docker network create -d passthrough:latest --ipam-driver passthrough:latest --subnet 10.6.0.0/24 -o netdevice=enp2s0 -o mode=macvlan thin`},
	{40, start("web", "customer1")},
	{50, start("db", "customer1")},
	{60, start("app", "customer2")},
	{70, start("thin1", "thin --ip 10.6.0.11") + "\n" + start("peer", "plain --ip 10.6.0.20") + `
docker exec -d peer sh -c 'while :; do ping -q -c 100 -i 0.1 -s 400 10.6.0.11; done'`},
	{110, `docker exec -d peer sh -c 'while :; do ping -q -c 100 -i 0.05 -s 1400 10.6.0.11; done'`},
	{120, `./passthroughctl quarantine enp1s0/6 'ticket 4711'`},
	{130, start("web2", "customer1")},
	{150, moment},
	{165, `for i in 1 2 3; do ! docker run --rm --net name=customer1,driver-opt=vf=0 lab true 2>/dev/null; done`},
	{190, `for i in 1 2 3 4; do docker run --rm --net customer2 lab true; done`},
	{230, `docker rm -f db web2`},
	{240, `docker restart -t1 peer thin1`},
	{250, `docker exec -d peer sh -c 'while :; do ping -q -c 100 -i 0.05 -s 1400 10.6.0.11; done'`},
	{270, `ip link set enp2s0 down`},
	{290, `ip link set enp2s0 up; ./passthroughctl retry enp1s0/6`},
	{310, start("db", "customer1") + "\n" + start("db2", "customer1")},
	{340, `docker rm -f db db2 app`},
	{360, `docker rm -f web peer thin1`},
}

// moment is the step at which stats and table are read.
const moment = "# the moment of stats and table"

func start(name, network string) string {
	return "docker run -d --name " + name + " --net " + network + " lab sleep 1000000"
}

// TestDashboard draws docs/dashboard.svg: a Prometheus scrapes the plugin in a guest while containers come and go, VFs are taken out of use, and a
// NIC is set down; the panels are drawn of what it answers. Those without a series are left out: igb counts nothing for its VFs.
func TestDashboard(t *testing.T) {
	lab(t, "put", repository+"bin/plugin", repository+"bin/passthroughctl", "/root/")
	lab(t, "sh", "docker plugin create passthrough:latest plugin && docker plugin set passthrough:latest METRICS=127.0.0.1:9877 && "+
		"docker plugin enable passthrough:latest")
	_, folder, ok := strings.Cut(lab(t, "status"), "folder ")
	if !ok {
		t.Fatal("the guest has no folder")
	}
	Run(t, "ssh", "-F", folder+"/ssh_config", "-O", "forward", "-L", "127.0.0.1:9879:127.0.0.1:9877", "lab")
	promtest.Start(t, repository, "4s", `{targets: ["127.0.0.1:9879"], labels: {instance: host1}}`)
	Within(t, time.Minute, func() string { return promtest.NoSeries("passthrough_ready == 1") })

	from, then := time.Now(), time.Time{}
	for _, step := range run {
		<-time.After(time.Until(from.Add(time.Duration(step.at) * time.Second)))
		lab(t, "sh", "set -e\n"+step.lines)
		if step.lines == moment {
			then = time.Now()
		}
	}
	<-time.After(30 * time.Second) // what the end looks like
	to := time.Now()

	var panels []shown
	for _, p := range promtest.Panels(t, repository, "20s") {
		s := shown{Panel: p}
		for _, target := range p.Targets {
			over := func() ([]promtest.Series, error) { return promtest.Over(target.Expr, from, to, 4*time.Second) }
			if p.Type != "timeseries" {
				over = func() ([]promtest.Series, error) { return promtest.At(target.Expr, then) }
			}
			found, err := over()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				s.series = append(s.series, series{f, named(target.LegendFormat, f.Metric)})
			}
		}
		if len(s.series) == 0 {
			t.Logf("panel %s has no series", p.Title)
			continue
		}
		panels = append(panels, s)
	}
	picture := draw("What the dashboard shows of a run in the lab", panels, from, to)
	if err := os.WriteFile(repository+pictures, []byte(picture), 0o644); err != nil {
		t.Fatal(err)
	}
}
