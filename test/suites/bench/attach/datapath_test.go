package attach

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/suites/bench/figures"
)

// Flags of the program in a container.
var (
	flagReceive = flag.Bool("receive", false, "receive what another container sends")
	flagSend    = flag.String("send", "", "send to this address, and print what was measured")
	flagFor     = flag.Duration("for", 3*time.Second, "how long each way is measured")
	flagTurns   = flag.Int("turns", 3, "how often each network is measured")
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case *flagReceive:
		ctx, end := signal.NotifyContext(context.Background(), os.Interrupt)
		defer end()
		exit(receive(ctx))
	case *flagSend != "":
		t, err := send(*flagSend, *flagFor)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(t)
		}
		exit(err)
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestDatapath measures what two containers on one host send each other, on networks of the plugin and of the engine's own drivers in turn. On VFs
// of one PF all of it goes through the NIC.
func TestDatapath(t *testing.T) {
	if err := dockertest.Install(*flagBundle); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &figures.Set{T: t}
	nets := slices.DeleteFunc(networks(t), func(net string) bool { return net == "none" || net == "ours-device" }) // two containers cannot have one
	all := map[string][]Traffic{}
	for range *flagTurns {
		for _, net := range nets {
			all[net] = append(all[net], measure(t, self, net))
		}
	}
	for _, net := range nets {
		f.Column = net
		var gbits, packets float64
		trips := []string{}
		for _, one := range all[net] {
			gbits, packets = max(gbits, one.Gbits), max(packets, one.Packets)
		}
		for i := range 3 {
			least := all[net][0].Trips[i]
			for _, one := range all[net] {
				least = min(least, one.Trips[i])
			}
			trips = append(trips, figures.Short(time.Duration(least*float64(time.Second))))
		}
		f.Value("P9 TCP, Gbit/s", "%.2f", gbits)
		f.Value("P9 UDP, 64 bytes, thousand packets a second", "%.1f", packets/1000)
		f.Add(figures.Figure{Name: "P9 a byte there and back: 50 %, 99 %, 99.99 %", Text: strings.Join(trips, " / ")})
	}
	fmt.Fprint(os.Stdout, "\n", f.Table())
	if *flagFigures != "" {
		if err := f.Save(*flagFigures + ".datapath"); err != nil {
			t.Error(err)
		}
	}
}

// measure runs a container that receives and one that sends.
func measure(t *testing.T, self, net string) (result Traffic) {
	t.Helper()
	program := []string{"--net", net, "-v", self + ":/program:ro", "lab", "/program"}
	id := dockertest.Docker(t, append(append([]string{"run", "-d"}, program...), "-receive")...)
	defer dockertest.Docker(t, "rm", "-f", id)
	ip := dockertest.Docker(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+net+`").IPAddress}}`, id)
	out := dockertest.Docker(t, append(append([]string{"run", "--rm"}, program...), "-send", ip, "-for", flagFor.String())...)
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	t.Logf("%s: %+v", net, result)
	return result
}
