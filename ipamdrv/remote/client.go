// Package remote is the client of a server that gives addresses. docs/remote-ipam.md has the protocol, and examples/remote-ipam a server.
//
// A lease has a key, which its client chooses: a request that is repeated under the same key, because its answer was lost, gets the same
// addresses, and a client that does not know whether it has a lease can release it all the same. The caller keeps the key from before the
// request until the release was answered; this package remembers nothing. It must not know pools or containers. Entry point: [Client].
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/internal/credential"
	"github.com/mellanox/passthrough/internal/retry"
)

// A Config says which server, and with which files it is spoken to; "" for none.
type Config struct {
	URL       string // https://HOST:PORT, with or without a path
	CA        string // file with the certificates that sign the server's; "" for those that the system trusts
	Cert, Key string // files with the client's own certificate and its key
	TokenFile string // file whose first line is the client's token
}

// Check refuses what cannot be meant. It reads no file.
func (c Config) Check() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("IPAM server: the address is https://HOST:PORT, with or without a path")
	case u.User != nil:
		return errors.New("IPAM server: a password has no place in the address; name the file of a token")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("IPAM server: a certificate and its key go together")
	}
	return nil
}

// A Request is a request for addresses. What is not known is left out, except that a server needs the network's name or a subnet.
type Request struct {
	Network   string       `json:"network,omitempty"`   // by its name at the server
	Subnet    netip.Prefix `json:"subnet,omitzero"`     // only an address of this one; otherwise one of each family that the network has
	Addresses []netip.Addr `json:"addresses,omitempty"` // these, of each family at most one
	PodID     string       `json:"podID,omitempty"`     // the container or pod, for people and for a server that knows it again
	HostIP    netip.Addr   `json:"hostIP,omitzero"`     // of the machine
	Host      string       `json:"host,omitempty"`      // the machine's name
	MAC       string       `json:"mac,omitempty"`       // of the device
}

// A Lease is what the server has leased under a key.
type Lease struct {
	Key string `json:"key"`
	Request
	IPs    []IP    `json:"ips"`
	Routes []Route `json:"routes,omitempty"`
	DNS    *DNS    `json:"dns,omitempty"`
}

// An IP is an address with the prefix length of its subnet.
type IP struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// A Route is a route that a container gets. Without a gateway it is that of the address of its family.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw,omitzero"`
}

// DNS is what a container's resolver is told.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// A Network is a network that the server has addresses of.
type Network struct {
	Name    string   `json:"name"`
	Subnets []Subnet `json:"subnets"`
}

// A Subnet is one subnet of a network.
type Subnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Times of requests. An engine waits for an answer for 10 seconds, and wants to be told the reason within them.
const (
	attemptTime = 2 * time.Second // of one attempt
	requestTime = 4 * time.Second // after which no further attempt is made
	maxAnswer   = 64 << 20        // bytes
)

// between is the pause between two attempts.
var between = retry.Backoff{First: 100 * time.Millisecond, Max: time.Second}

// A Client speaks to one server. Its methods may be called concurrently. The error of each is an [*Error].
type Client struct {
	config Config
	http   *http.Client
}

// New returns a client. It connects with the first request.
func New(c Config) *Client {
	c.URL = strings.TrimRight(c.URL, "/")
	return &Client{config: c, http: &http.Client{
		Transport: &http.Transport{DialTLSContext: c.dial, MaxIdleConns: 8, IdleConnTimeout: time.Minute},
		// The server of another address would be told the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// dial connects to the server, with the files as they are now.
func (c Config) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	t, err := credential.TLS(c.CA, c.Cert, c.Key)
	if err != nil {
		return nil, &fileError{err}
	}
	return (&tls.Dialer{Config: t}).DialContext(ctx, network, addr)
}

// Server returns the server's address, for people.
func (c *Client) Server() string { return c.config.URL }

// HostIP returns this machine's address on the way to the server; not valid if there is none. It sends nothing.
func (c *Client) HostIP(ctx context.Context) netip.Addr {
	u, err := url.Parse(c.config.URL)
	if err != nil {
		return netip.Addr{}
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	at, _ := netip.ParseAddrPort(conn.LocalAddr().String()) // not valid with an error
	return at.Addr().Unmap()
}

// Allocate leases addresses under a key, which must not have been released. If it fails, the server may have made the lease nevertheless,
// unless the error is a refusal, see [Error.Refused]: the caller repeats the request, or releases the key.
func (c *Client) Allocate(ctx context.Context, key string, r Request) (Lease, error) {
	var l Lease
	err := c.do(ctx, http.MethodPut, "/v1/leases/"+url.PathEscape(key), r, &l)
	if err == nil && (len(l.IPs) == 0 || slices.ContainsFunc(l.IPs, func(ip IP) bool { return !ip.Address.IsValid() })) {
		err = &Error{Server: c.config.URL, Kind: ErrProtocol, Text: "the answer has no address"}
	}
	return l, err
}

// Release releases what is leased under a key, if anything is. Afterwards no request under the key succeeds, one that is still on its way
// included. It asks once: no container waits for the answer, and the caller has to ask again
// anyway.
func (c *Client) Release(ctx context.Context, key string) error {
	return c.once(ctx, http.MethodDelete, "/v1/leases/"+url.PathEscape(key), nil, nil)
}

// Lease returns what is leased under a key. The error matches [ErrReleased] or [ErrUnknown] if nothing is.
func (c *Client) Lease(ctx context.Context, key string) (l Lease, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/leases/"+url.PathEscape(key), nil, &l)
	return l, err
}

// Leases lists the leases of a network and of a host; "" for all.
func (c *Client) Leases(ctx context.Context, network, host string) ([]Lease, error) {
	query := url.Values{}
	for name, value := range map[string]string{"network": network, "host": host} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var answer struct {
		Leases []Lease `json:"leases"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/leases?"+query.Encode(), nil, &answer)
	return answer.Leases, err
}

// Networks lists the networks of which the server gives addresses to this client.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	var answer struct {
		Networks []Network `json:"networks"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/networks", nil, &answer)
	return answer.Networks, err
}

// Ping asks once whether the server answers.
func (c *Client) Ping(ctx context.Context) error {
	return c.once(ctx, http.MethodGet, "/v1/networks", nil, nil)
}

// do makes a request, again while the server does not answer. All requests of the protocol may be repeated.
func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	again := func(err error) bool { return errors.Is(err, ErrUnavailable) && ctx.Err() == nil }
	return retry.Do(ctx, between, requestTime, again, func() error { return c.once(ctx, method, path, body, answer) })
}

// once makes a request.
func (c *Client) once(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, c.config.URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.config.TokenFile != "" {
		token, err := credential.Secret(c.config.TokenFile)
		if err != nil {
			return c.failure(&fileError{fmt.Errorf("token: %w", err)})
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	got, err := c.http.Do(r)
	if err != nil {
		return c.failure(err)
	}
	defer got.Body.Close()
	said, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer))
	if err != nil {
		return c.failure(err)
	}
	if got.StatusCode/100 != 2 {
		return c.refusal(got, said)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(said, answer); err != nil {
		return &Error{Server: c.config.URL, Kind: ErrProtocol, Text: "the answer cannot be read: " + err.Error()}
	}
	return nil
}

// failure returns the error of a request without an answer.
func (c *Client) failure(err error) error {
	e := &Error{Server: c.config.URL, Kind: ErrUnavailable, Text: cause(err).Error()}
	var file *fileError
	switch {
	case errors.As(err, &file):
		e.Kind, e.Text = ErrNotTrusted, file.Error()
	case errors.Is(err, context.DeadlineExceeded):
		e.Text = "no answer in time"
	case strings.Contains(e.Text, "tls: "), strings.Contains(e.Text, "x509: "): // what the server refuses has no type
		e.Kind = ErrNotTrusted
	}
	return e
}

// cause returns an error without the request that it is about, which is named already.
func cause(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// fileError is the error of a file that the configuration names. No request was sent.
type fileError struct{ error }

// Unwrap returns the cause.
func (e *fileError) Unwrap() error { return e.error }
