// Command remote-ipam is a small server of the protocol of docs/remote-ipam.md. It is complete: it can serve a few hosts, and it is the
// beginning of a server that asks NetBox, phpIPAM or Infoblox. For that, replace what the methods allocate, release and list do; the rest is
// HTTP. It needs Go alone:
//
//	go run . config.json
package main

import (
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

type config struct {
	Listen    string    `json:"listen"` // ADDRESS:PORT
	Cert      string    `json:"cert"`   // files of the server's certificate and its key
	Key       string    `json:"key"`
	ClientCA  string    `json:"clientCA"`  // file; with it clients need a certificate that it has signed
	TokenFile string    `json:"tokenFile"` // its first line is the token that clients need
	State     string    `json:"state"`     // file
	Networks  []network `json:"networks"`
}

type network struct {
	Name    string   `json:"name"`
	Subnets []subnet `json:"subnets"`
	extra
}

// extra is what clients are told besides, as it is in the configuration.
type extra struct {
	Routes json.RawMessage `json:"routes,omitempty"`
	DNS    json.RawMessage `json:"dns,omitempty"`
}

type subnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	First   netip.Addr   `json:"first,omitzero"` // what is given is between these two
	Last    netip.Addr   `json:"last,omitzero"`
}

type request struct {
	Network   string       `json:"network,omitempty"`
	Subnet    netip.Prefix `json:"subnet,omitzero"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	PodID     string       `json:"podID,omitempty"`
	HostIP    netip.Addr   `json:"hostIP,omitzero"`
	Host      string       `json:"host,omitempty"`
	MAC       string       `json:"mac,omitempty"`
}

type ip struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

type lease struct {
	Key string `json:"key"`
	request
	extra
	IPs   []ip      `json:"ips"`
	Since time.Time `json:"since"`
}

// A server has its state in a file, which is written before each answer that depends on it.
type server struct {
	config
	token string

	mu    sync.Mutex // guards the fields below
	state struct {
		Leases map[string]lease `json:"leases"`
		// Released has the keys that cannot be used any more: a request that was delayed on its way must not lease what is never released.
		Released map[string]time.Time  `json:"released"`
		Last     map[string]netip.Addr `json:"last"` // the address that was given last, by subnet: a released one rests as long as possible
	}
}

// keepReleased is how long a released key is remembered: longer than any request is on its way.
const keepReleased = 24 * time.Hour

// A refusal is an answer that is none of success.
type refusal struct {
	status int
	Code   string `json:"code"`
	Text   string `json:"error"`
}

func (r *refusal) Error() string { return r.Text }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "remote-ipam:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: remote-ipam CONFIG.json")
	}
	s := &server{}
	if err := readJSON(os.Args[1], &s.config); err != nil {
		return err
	}
	if err := readJSON(s.State, &s.state); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if s.state.Leases == nil {
		s.state.Leases, s.state.Released, s.state.Last = map[string]lease{}, map[string]time.Time{}, map[string]netip.Addr{}
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.ClientCA != "" {
		pem, err := os.ReadFile(s.ClientCA)
		if err != nil {
			return err
		}
		secure.ClientCAs, secure.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !secure.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate", s.ClientCA)
		}
	}
	if s.TokenFile != "" {
		text, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return err
		}
		if s.token, _, _ = strings.Cut(string(text), "\n"); s.token == "" {
			return fmt.Errorf("%s has no token", s.TokenFile)
		}
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())
	return (&http.Server{Handler: s.handler(), TLSConfig: secure, ReadTimeout: 10 * time.Second}).ServeTLS(l, s.Cert, s.Key)
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// handler has the paths of the protocol.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/leases/{key}", s.answer(func(w http.ResponseWriter, r *http.Request) (any, int, error) {
		var q request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&q); err != nil {
			return nil, 0, refuse(http.StatusBadRequest, "invalid", "the request cannot be read: %v", err)
		}
		l, isNew, err := s.allocate(r.PathValue("key"), q)
		if isNew {
			return l, http.StatusCreated, err
		}
		return l, http.StatusOK, err
	}))
	mux.HandleFunc("DELETE /v1/leases/{key}", s.answer(func(_ http.ResponseWriter, r *http.Request) (any, int, error) {
		return nil, http.StatusNoContent, s.release(r.PathValue("key"))
	}))
	mux.HandleFunc("GET /v1/leases/{key}", s.answer(func(_ http.ResponseWriter, r *http.Request) (any, int, error) {
		l, err := s.find(r.PathValue("key"))
		return l, http.StatusOK, err
	}))
	mux.HandleFunc("GET /v1/leases", s.answer(func(_ http.ResponseWriter, r *http.Request) (any, int, error) {
		return map[string]any{"leases": s.list(r.FormValue("network"), r.FormValue("host"))}, http.StatusOK, nil
	}))
	mux.HandleFunc("GET /v1/networks", s.answer(func(http.ResponseWriter, *http.Request) (any, int, error) {
		return map[string]any{"networks": s.Networks}, http.StatusOK, nil
	}))
	return mux
}

// answer writes what f returns, for clients with the token.
func (s *server) answer(f func(w http.ResponseWriter, r *http.Request) (body any, status int, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body any
		status, err := 0, refuse(http.StatusUnauthorized, "unauthorized", "the token is missing or wrong")
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.token)) == 1 || s.token == "" {
			body, status, err = f(w, r)
		}
		if err != nil {
			no := &refusal{http.StatusInternalServerError, "internal", err.Error()}
			errors.As(err, &no)
			body, status = no, no.status
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if body != nil {
			_ = json.NewEncoder(w).Encode(body) // a client that has gone asks again
		}
	}
}

// allocate leases addresses under a key. A request that is repeated gets the same ones.
func (s *server) allocate(key string, q request) (l lease, isNew bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.state.Leases[key]; ok {
		return l, false, nil
	}
	if _, ok := s.state.Released[key]; ok {
		return lease{}, false, refuse(http.StatusGone, "released", "the key %q was released", key)
	}
	n, err := s.networkOf(q)
	if err != nil {
		return lease{}, false, err
	}
	q.Network = n.Name
	l = lease{Key: key, request: q, extra: n.extra, Since: time.Now().UTC()}
	if l.IPs, err = s.choose(n, q); err != nil {
		return lease{}, false, err
	}
	s.state.Leases[key] = l
	if err := s.save(); err != nil {
		delete(s.state.Leases, key)
		return lease{}, false, err
	}
	return l, true, nil
}

// release releases what is leased under a key, if anything is. The key cannot be used any more.
func (s *server) release(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, at := range s.state.Released {
		if time.Since(at) > keepReleased {
			delete(s.state.Released, k)
		}
	}
	delete(s.state.Leases, key)
	s.state.Released[key] = time.Now().UTC()
	return s.save()
}

// find returns what is leased under a key.
func (s *server) find(key string) (lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.state.Leases[key]; ok {
		return l, nil
	}
	if _, ok := s.state.Released[key]; ok {
		return lease{}, refuse(http.StatusGone, "released", "the key %q was released", key)
	}
	return lease{}, refuse(http.StatusNotFound, "unknown", "nothing is leased under the key %q", key)
}

// list returns the leases of a network and a host, "" for all.
func (s *server) list(network, host string) []lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []lease{}
	for _, l := range s.state.Leases {
		if (network == "" || l.Network == network) && (host == "" || l.Host == host) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b lease) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// networkOf returns the network that a request names, or the one that has its subnet.
func (s *server) networkOf(q request) (*network, error) {
	var found []*network
	for i, n := range s.Networks {
		has := slices.ContainsFunc(n.Subnets, func(o subnet) bool { return o.Subnet == q.Subnet })
		if (q.Network == "" || n.Name == q.Network) && (has || !q.Subnet.IsValid() && q.Network != "") {
			found = append(found, &s.Networks[i])
		}
	}
	switch len(found) {
	case 0:
		text := fmt.Sprintf("there is no network %q", q.Network)
		if q.Network == "" {
			text = "there is no network"
		}
		if q.Subnet.IsValid() {
			text += " with subnet " + q.Subnet.String()
		}
		return nil, refuse(http.StatusNotFound, "unknown", "%s", text)
	case 1:
		return found[0], nil
	}
	return nil, refuse(http.StatusBadRequest, "invalid", "networks %s and %s have subnet %s: name one", found[0].Name, found[1].Name, q.Subnet)
}

// choose chooses an address of the subnet that the request names, or one of each family. The caller has the lock.
func (s *server) choose(n *network, q request) (ips []ip, err error) {
	taken := map[netip.Addr]bool{}
	for _, l := range s.state.Leases {
		for _, i := range l.IPs {
			taken[i.Address.Addr()] = taken[i.Address.Addr()] || l.Network == n.Name
		}
	}
	var families [2]bool // that have an address: IPv4, IPv6
	wanted := 0
	for _, of := range n.Subnets {
		v6 := 0
		if of.Subnet.Addr().Is6() {
			v6 = 1
		}
		i := slices.IndexFunc(q.Addresses, func(a netip.Addr) bool { return a.Is6() == (v6 == 1) })
		if families[v6] || q.Subnet.IsValid() && q.Subnet != of.Subnet || i >= 0 && !of.Subnet.Contains(q.Addresses[i]) {
			continue
		}
		taken[of.Gateway] = true
		last := n.Name + " " + of.Subnet.String()
		a := of.next(s.state.Last[last], taken)
		if i >= 0 {
			wanted++
			if a = q.Addresses[i]; taken[a] {
				return nil, refuse(http.StatusConflict, "in_use", "address %s is in use", a)
			}
		}
		if a.IsValid() {
			s.state.Last[last], families[v6] = a, true
			ips = append(ips, ip{netip.PrefixFrom(a, of.Subnet.Bits()), of.Gateway})
		}
	}
	switch {
	case wanted < len(q.Addresses):
		return nil, refuse(http.StatusBadRequest, "invalid", "of addresses %s there is none to give: one of each family, of the network's subnets", q.Addresses)
	case len(ips) == 0:
		return nil, refuse(http.StatusConflict, "full", "network %s has no address left", n.Name)
	}
	return ips, nil
}

// next returns the first free address after last, not valid for none.
func (n subnet) next(last netip.Addr, taken map[netip.Addr]bool) netip.Addr {
	first := n.First
	if !first.IsValid() {
		first = n.Subnet.Masked().Addr().Next()
	}
	for _, from := range []netip.Addr{last, first.Prev()} {
		for a := from.Next(); n.Subnet.Contains(a) && (!n.Last.IsValid() || a.Compare(n.Last) <= 0); a = a.Next() {
			broadcast := a.Is4() && n.Subnet.Bits() < 31 && !n.Subnet.Contains(a.Next())
			if !taken[a] && !broadcast && a.Compare(first) >= 0 {
				return a
			}
		}
	}
	return netip.Addr{}
}

// save writes the state to its file: all of it, or nothing. The caller has the lock.
func (s *server) save() error {
	text, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(s.State), filepath.Base(s.State)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), s.State)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	dir, err := os.Open(filepath.Dir(s.State))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
