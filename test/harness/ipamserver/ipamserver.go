// Package ipamserver runs the server of examples/remote-ipam for tests, behind a relay that can lose answers.
package ipamserver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// module is the path of the main module.
const module = "github.com/mellanox/passthrough"

// A Server is a process of the server. Clients speak to the relay in front of it, whose address stays when the process is started again.
type Server struct {
	t       *testing.T
	program string
	config  string // file
	state   string // file

	remote.Config // of a client

	mu      sync.Mutex // guards the fields below
	process *exec.Cmd  // nil while it does not run
	backend *url.URL
	lose    func(*http.Request) bool
	asked   []string
}

// built is the variable of the environment that names the built server, where there is no Go.
const built = "REMOTE_IPAM"

// Start builds the server, if that was not done, and starts it with networks, in the form of its configuration. The test's end stops it.
func Start(t *testing.T, networks string) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{t: t, program: filepath.Join(dir, "remote-ipam"), config: filepath.Join(dir, "config.json"), state: filepath.Join(dir, "state.json"),
		lose: func(*http.Request) bool { return false }}
	if program := os.Getenv(built); program != "" {
		s.program = program
	} else if out, err := exec.Command("go", "build", "-o", s.program, module+"/examples/remote-ipam").CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v: %s", err, out)
	}
	authority := etcdtest.NewAuthority(t)
	cert, key := authority.Sign("server")
	s.CA, s.TokenFile = authority.CA, filepath.Join(dir, "token")
	text := fmt.Sprintf(`{"listen": "127.0.0.1:0", "cert": %q, "key": %q, "tokenFile": %q, "state": %q, "networks": %s}`, cert, key, s.TokenFile, s.state,
		networks)
	for file, content := range map[string]string{s.config: text, s.TokenFile: "s3cret\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.relay(authority, cert, key)
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// relay starts the relay.
func (s *Server) relay(authority *etcdtest.Authority, cert, key string) {
	s.t.Helper()
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		s.t.Fatal(err)
	}
	pem, err := os.ReadFile(authority.CA)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.URL = "https://" + l.Addr().String()
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(s.target()) },
		Transport:    &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ModifyResponse: func(r *http.Response) error {
			if s.losing()(r.Request) {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if r.Method != http.MethodGet {
			s.asked = append(s.asked, r.Method)
		}
		s.mu.Unlock()
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }() // ends with the test
	s.t.Cleanup(func() { _ = server.Close() })
}

// target returns where the process listens.
func (s *Server) target() *url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backend
}

// losing returns which answers are lost.
func (s *Server) losing() func(*http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lose
}

// Lose sets which answers are lost: the server has done what was asked, and the client is not told. which may kill the server.
func (s *Server) Lose(which func(*http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = which
}

// Asked returns the methods of the requests since the last time, without those that change nothing.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Kill kills the process.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait() // the error is that it was killed
		s.process = nil
	}
}

// Restart starts the process, which was killed.
func (s *Server) Restart() {
	s.t.Helper()
	process := exec.Command(s.program, s.config)
	var stderr bytes.Buffer
	process.Stderr = &stderr
	out, err := process.StdoutPipe()
	if err == nil {
		err = process.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if _, _, bad := net.SplitHostPort(addr); err != nil || !ok || bad != nil {
		_ = process.Wait()
		s.t.Fatalf("the server says %q, %v, %s", line, err, &stderr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process, s.backend = process, &url.URL{Scheme: "https", Host: addr}
}

// Direct returns the configuration of a client that speaks to the process itself.
func (s *Server) Direct() remote.Config {
	c := s.Config
	c.URL = s.target().String()
	return c
}

// Configure changes the server's configuration, and starts it again.
func (s *Server) Configure(old, now string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err == nil {
		err = os.WriteFile(s.config, []byte(strings.ReplaceAll(string(text), old, now)), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.Kill()
	s.Restart()
}

// Leases returns the addresses that are leased, with their keys. It reads the server's file, so that it works while the server is killed.
func (s *Server) Leases() map[string]string {
	s.t.Helper()
	text, err := os.ReadFile(s.state)
	if os.IsNotExist(err) {
		return map[string]string{}
	}
	var state struct{ Leases map[string]remote.Lease }
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	leased := map[string]string{}
	for key, l := range state.Leases {
		for _, ip := range l.IPs {
			if other, ok := leased[ip.Address.Addr().String()]; ok {
				s.t.Errorf("%s is leased twice: %s, %s", ip.Address.Addr(), other, key)
			}
			leased[ip.Address.Addr().String()] = key
		}
	}
	return leased
}
