package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
)

// A Client asks a server on a unix socket: the plugin, or the Docker Engine.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the server that listens on a socket. It does not connect.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Call makes a call of the plugin; request and answer are as the constants of this package say.
func (c *Client) Call(ctx context.Context, op string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/"+op, body, answer)
}

// Stream makes a call without arguments whose answer is not one JSON object, and copies the answer.
func (c *Client) Stream(ctx context.Context, op string, to io.Writer) error {
	resp, err := c.send(ctx, http.MethodPost, "/"+op, []byte("{}"))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("socket %s: %w", c.socket, err)
	}
	return nil
}

// Get reads a resource of the engine, such as "/containers/json".
func (c *Client) Get(ctx context.Context, path string, answer any) error {
	return c.do(ctx, http.MethodGet, path, nil, answer)
}

// do makes a request. The error has the text that the server answered.
func (c *Client) do(ctx context.Context, method, path string, body []byte, answer any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("socket %s: %w", c.socket, err)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("socket %s: %s: %w", c.socket, path, err)
	}
	return nil
}

// send makes a request and returns the response, if that is no error; the caller closes it. The error has the text that the server answered.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) { // without the URL, which says nothing
			err = op
		}
		return nil, fmt.Errorf("socket %s: %w", c.socket, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("socket %s: %w", c.socket, err)
	}
	return nil, fmt.Errorf("socket %s: %s", c.socket, failure(text))
}

// failure returns the text of an error of the plugin (Err) or of the engine (message).
func failure(body []byte) string {
	var fields struct{ Err, Message string }
	if json.Unmarshal(body, &fields) == nil && fields.Err+fields.Message != "" {
		return fields.Err + fields.Message
	}
	return strings.TrimSpace(string(body))
}

// socketName is what the plugin calls its socket.
const socketName = "passthrough.sock"

// pluginSockets is where engines look for sockets of plugins (pkg/plugins in docker, 20.10 to 29).
const pluginSockets = "/run/docker/plugins"

// ErrNoSocket is that this machine has no socket of the plugin, not even one that does not answer.
var ErrNoSocket = errors.New("no socket of the plugin in " + pluginSockets)

// FindSocket returns the socket of the plugin on this machine: that of a managed plugin is in a folder named after the plugin's ID, that of a
// service or a container beside these.
func FindSocket() (string, error) {
	var found []string
	for _, pattern := range []string{socketName, "*/" + socketName} {
		paths, err := filepath.Glob(filepath.Join(pluginSockets, pattern))
		if err != nil {
			return "", err
		}
		found = append(found, paths...)
	}
	// What an engine or a process left behind when it was killed does not answer.
	live := slices.DeleteFunc(slices.Clone(found), func(path string) bool {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return true
		}
		return conn.Close() != nil
	})
	switch {
	case len(live) == 1:
		return live[0], nil
	case len(live) > 1:
		return "", fmt.Errorf("several plugins answer: %s; name one with --socket", strings.Join(live, ", "))
	case len(found) > 0:
		return "", fmt.Errorf("the plugin does not answer at %s: run as root, and check that it is enabled (docker plugin ls)",
			strings.Join(found, ", "))
	}
	return "", fmt.Errorf("%w: run as root on a host with the plugin, or name its socket with --socket", ErrNoSocket)
}
