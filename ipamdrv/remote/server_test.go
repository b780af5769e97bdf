package remote_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
	"github.com/mellanox/passthrough/test/harness/ipamserver"
)

// networks are those of the server: of one with two families, and of two with one subnet.
const networks = `[
	{"name": "mynet", "subnets": [
		{"subnet": "10.55.206.0/26", "first": "10.55.206.46", "last": "10.55.206.49", "gateway": "10.55.206.1"},
		{"subnet": "fd00:55::/64", "gateway": "fd00:55::1"}],
	 "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.55.206.2"}], "dns": {"nameservers": ["10.0.0.53"], "search": ["example.org"]}},
	{"name": "a", "subnets": [{"subnet": "10.1.0.0/29"}]},
	{"name": "b", "subnets": [{"subnet": "10.1.0.0/29"}]}]`

// TestServer is the protocol, spoken to the server of examples.
func TestServer(t *testing.T) {
	t.Parallel()
	s := ipamserver.Start(t, networks)
	c := remote.New(s.Config)
	allocate := func(key string, r remote.Request, want ...string) {
		t.Helper()
		l, err := c.Allocate(t.Context(), key, r)
		var got []string
		for _, ip := range l.IPs {
			got = append(got, ip.Address.String())
		}
		if err != nil || !slices.Equal(got, want) || l.Key != key {
			t.Errorf("%s: %s %v, %v, want %v", key, l.Key, got, err, want)
		}
	}
	refuse := func(key string, r remote.Request, kind error, want string) {
		t.Helper()
		l, err := c.Allocate(t.Context(), key, r)
		var of *remote.Error
		if !errors.Is(err, kind) || err.Error() != "IPAM server "+s.URL+": "+want || !errors.As(err, &of) || !of.Refused() {
			t.Errorf("%s: %v, %v, want %s", key, l.IPs, err, want)
		}
	}
	v4, mynet := netip.MustParsePrefix("10.55.206.0/26"), "mynet"
	full := remote.Request{Network: mynet, PodID: "1234", HostIP: netip.MustParseAddr("10.55.206.20"), Host: "node1", MAC: "02:00:00:00:00:42"}
	allocate("k1", full, "10.55.206.46/26", "fd00:55::2/64")
	allocate("k1", full, "10.55.206.46/26", "fd00:55::2/64")
	allocate("k2", remote.Request{Subnet: v4}, "10.55.206.47/26")
	allocate("k3", remote.Request{Network: mynet, Subnet: v4, Addresses: []netip.Addr{netip.MustParseAddr("10.55.206.49")}}, "10.55.206.49/26")
	refuse("k4", remote.Request{Subnet: v4, Addresses: []netip.Addr{netip.MustParseAddr("10.55.206.49")}}, remote.ErrInUse, "address 10.55.206.49 is in use")
	refuse("k4", remote.Request{Subnet: v4, Addresses: []netip.Addr{netip.MustParseAddr("10.55.206.1")}}, remote.ErrInUse, "address 10.55.206.1 is in use")
	refuse("k4", remote.Request{Subnet: v4, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}, remote.ErrInvalid,
		"of addresses [10.1.0.1] there is none to give: one of each family, of the network's subnets")
	refuse("k4", remote.Request{Network: "other"}, remote.ErrUnknown, `there is no network "other"`)
	refuse("k4", remote.Request{Subnet: netip.MustParsePrefix("10.1.0.0/29")}, remote.ErrInvalid, "networks a and b have subnet 10.1.0.0/29: name one")
	allocate("k4", remote.Request{Network: "b", Subnet: netip.MustParsePrefix("10.1.0.0/29")}, "10.1.0.1/29")
	allocate("k5", remote.Request{Subnet: v4}, "10.55.206.48/26")
	refuse("k6", remote.Request{Subnet: v4}, remote.ErrFull, "network mynet has no address left")

	s.Kill()
	s.Restart()
	l, err := c.Lease(t.Context(), "k1")
	if err != nil || l.PodID != "1234" || l.HostIP.String() != "10.55.206.20" || l.Host != "node1" || l.MAC != full.MAC || len(l.Routes) != 2 ||
		l.Routes[1].GW.String() != "10.55.206.2" || l.DNS == nil || l.DNS.Search[0] != "example.org" || l.IPs[0].Gateway.String() != "10.55.206.1" {
		t.Errorf("after a restart: %+v, %v", l, err)
	}
	for _, filter := range []struct {
		network, host string
		want          int
	}{{"", "", 5}, {mynet, "", 4}, {"", "node1", 1}, {"b", "node1", 0}} {
		if got, err := c.Leases(t.Context(), filter.network, filter.host); err != nil || len(got) != filter.want {
			t.Errorf("%+v: %+v, %v", filter, got, err)
		}
	}
	for range 2 {
		if err := c.Release(t.Context(), "k2"); err != nil {
			t.Error(err)
		}
	}
	refuse("k2", remote.Request{Subnet: v4}, remote.ErrReleased, `the key "k2" was released`)
	if _, err := c.Lease(t.Context(), "k2"); !errors.Is(err, remote.ErrReleased) {
		t.Error(err)
	}
	if _, err := c.Lease(t.Context(), "never"); !errors.Is(err, remote.ErrUnknown) {
		t.Error(err)
	}
	allocate("k6", remote.Request{Subnet: v4}, "10.55.206.47/26")
	// The release overtakes the request.
	if err := c.Release(t.Context(), "late"); err != nil {
		t.Error(err)
	}
	refuse("late", remote.Request{Network: "a"}, remote.ErrReleased, `the key "late" was released`)
	nets, err := c.Networks(t.Context())
	if err != nil || len(nets) != 3 || nets[0].Subnets[0].Gateway.String() != "10.55.206.1" || nets[1].Name != "a" {
		t.Errorf("networks: %+v, %v", nets, err)
	}
	if ip := c.HostIP(t.Context()); ip.String() != "127.0.0.1" {
		t.Errorf("the host's address is %s", ip)
	}
	s.Leases() // none twice
}

// TestLostAnswer: the server is killed after it has done what was asked, and before it answers. The request that is repeated gets the same
// address, and a release in its place frees it.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	s := ipamserver.Start(t, networks)
	c := remote.New(s.Config)
	r := remote.Request{Network: "a"}
	lost := make(chan struct{})
	s.Lose(func(*http.Request) bool {
		s.Lose(func(*http.Request) bool { return false })
		s.Kill()
		close(lost)
		return true
	})
	go func() {
		<-lost
		s.Restart()
	}()
	l, err := c.Allocate(t.Context(), "k", r) // it asks again by itself
	if err != nil || len(s.Leases()) != 1 || s.Leases()[l.IPs[0].Address.Addr().String()] != "k" {
		t.Errorf("%+v, %v; the server has %v", l, err, s.Leases())
	}
	s.Lose(func(*http.Request) bool { return true })
	if _, err := c.Allocate(t.Context(), "k2", r); !errors.Is(err, remote.ErrUnavailable) || len(s.Leases()) != 2 {
		t.Errorf("all answers are lost: %v; the server has %v", err, s.Leases())
	}
	s.Lose(func(*http.Request) bool { return false })
	if err := c.Release(t.Context(), "k2"); err != nil || len(s.Leases()) != 1 {
		t.Errorf("%v; the server has %v", err, s.Leases())
	}
}

// TestWho: certificates and tokens, and what is said of them. Files that were replaced are used without a restart.
func TestWho(t *testing.T) {
	t.Parallel()
	s := ipamserver.Start(t, networks)
	ask := func(change func(*remote.Config)) error {
		c := s.Direct()
		change(&c)
		_, err := remote.New(c).Networks(t.Context())
		return err
	}
	other := etcdtest.NewAuthority(t)
	cert, key := other.Sign("client")
	wrong := filepath.Join(t.TempDir(), "token")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(wrong, []byte(text), 0o600), os.Chmod(wrong, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("other\n", 0o600)
	const check = "; check the files of the CA, the certificate and the token"
	for name, c := range map[string]struct {
		change func(*remote.Config)
		want   string
	}{
		"another CA":    {func(c *remote.Config) { c.CA = other.CA }, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"no CA":         {func(c *remote.Config) { c.CA = "" }, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"no file":       {func(c *remote.Config) { c.CA = "/none" }, "ca: open /none: no such file or directory"},
		"no token":      {func(c *remote.Config) { c.TokenFile = "" }, "the token is missing or wrong"},
		"another token": {func(c *remote.Config) { c.TokenFile = wrong }, "the token is missing or wrong"},
		"no token file": {func(c *remote.Config) { c.TokenFile = "/none" }, "token: stat /none: no such file or directory"},
	} {
		if err := ask(c.change); !errors.Is(err, remote.ErrNotTrusted) || !strings.Contains(err.Error(), ": "+c.want) ||
			!strings.HasSuffix(err.Error(), check) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	c := s.Config
	c.TokenFile = wrong
	client := remote.New(c)
	write("s3cret\n", 0o604)
	if err := client.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "can be read or written by every user of the host (mode 0604)") {
		t.Errorf("a token that everybody can read: %v", err)
	}
	write("s3cret\n", 0o640)
	if err := client.Ping(t.Context()); err != nil {
		t.Errorf("the token was replaced: %v", err)
	}

	s.Configure(`"networks"`, `"clientCA": "`+other.CA+`", "networks"`)
	if err := ask(func(*remote.Config) {}); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("without a certificate: %v", err)
	}
	if err := ask(func(c *remote.Config) { c.Cert, c.Key = cert, key }); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	s.Kill()
	if err := ask(func(*remote.Config) {}); !errors.Is(err, remote.ErrUnavailable) ||
		!strings.Contains(err.Error(), "connection refused); see that it runs and that this host reaches it") {
		t.Errorf("without a server: %v", err)
	}
}

// TestConfig: what cannot be meant.
func TestConfig(t *testing.T) {
	t.Parallel()
	for url, good := range map[string]bool{
		"https://ipam.example": true, "https://[fd00::1]:10000/ipam": true,
		"http://ipam.example": false, "https://": false, "https://u:p@ipam.example": false, "https://ipam.example?x=y": false, "ipam": false,
	} {
		if err := (remote.Config{URL: url}).Check(); (err == nil) != good {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := (remote.Config{URL: "https://ipam.example", Cert: "x"}).Check(); err == nil {
		t.Error("a certificate without a key is accepted")
	}
}

// TestOpenAPI: the description of the protocol has the paths, the methods, the fields and the codes that client and server use.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../examples/remote-ipam/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Properties map[string]struct {
			Enum  []string
			Items struct{ Properties map[string]any }
		}
		AllOf []schema
	}
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(text, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.") {
		t.Fatalf("version %q, %v", doc.OpenAPI, err)
	}
	source, err := os.ReadFile("../../examples/remote-ipam/main.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" {
				routes++
				if !strings.Contains(string(source), `"`+strings.ToUpper(method)+" "+path+`"`) {
					t.Errorf("the server does not have %s %s", method, path)
				}
			}
		}
	}
	if n := strings.Count(string(source), "mux.HandleFunc("); routes != 5 || n != routes {
		t.Errorf("%d routes are described, the server has %d", routes, n)
	}
	fields := func(v any) []string {
		raw, err := json.Marshal(v)
		var all map[string]any
		if err == nil {
			err = json.Unmarshal(raw, &all)
		}
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	described := func(name string) []string {
		s := doc.Components.Schemas[name]
		var names []string
		for _, of := range append(s.AllOf, s) {
			for name := range of.Properties {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	a := netip.MustParseAddr("10.0.0.1")
	p := netip.PrefixFrom(a, 24)
	q := remote.Request{Network: "n", Subnet: p, Addresses: []netip.Addr{a}, PodID: "p", HostIP: a, Host: "h", MAC: "m"}
	l := remote.Lease{Key: "k", Request: q, IPs: []remote.IP{{p, a}}, Routes: []remote.Route{{p, a}}, DNS: &remote.DNS{}}
	if got, want := fields(q), described("Request"); !slices.Equal(got, want) {
		t.Errorf("a request has %v, described are %v", got, want)
	}
	if got, want := append(fields(l), "since"), append(described("Request"), described("Lease")...); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("a lease has %v, described are %v", got, want)
	}
	if got, want := fields(remote.Network{}), described("Network"); !slices.Equal(got, want) {
		t.Errorf("a network has %v, described are %v", got, want)
	}
	for _, code := range doc.Components.Schemas["Error"].Properties["code"].Enum {
		if !strings.Contains(string(source), `"`+code+`"`) {
			t.Errorf("the server has no code %s", code)
		}
	}
}

// TestManual: the commands of the manual start the server of examples, and ask it.
func TestManual(t *testing.T) {
	t.Parallel()
	dir, server := t.TempDir(), "127.0.0.1:10000"
	program := filepath.Join(dir, "server")
	if out, err := exec.Command("go", "build", "-o", program, "../../examples/remote-ipam").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config, err := os.ReadFile("../../examples/remote-ipam/config.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), []byte(strings.Replace(string(config), server, "127.0.0.1:0", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range docs.Commands(t, "../../docs/remote-ipam.md", "A server to begin with") {
		if command == "cd examples/remote-ipam" {
			continue
		}
		if command == "go run . config.json" {
			server = start(t, exec.Command(program, "config.json"), dir)
			continue
		}
		run := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, "127.0.0.1:10000", server))
		run.Dir = dir
		out, err := run.Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		for suffix, want := range map[string]string{"/v1/networks": `"subnet":"10.55.206.0/26"`, "/v1/leases": `{"leases":[]}`} {
			if strings.HasSuffix(command, suffix) && !strings.Contains(string(out), want) {
				t.Errorf("%s: %s", command, out)
			}
		}
	}
	if server == "127.0.0.1:10000" {
		t.Error("the manual does not start the server")
	}
}

// start starts a server in a folder until the test ends, and returns where it listens.
func start(t *testing.T, server *exec.Cmd, dir string) string {
	t.Helper()
	server.Dir = dir
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // the error is that it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
}
