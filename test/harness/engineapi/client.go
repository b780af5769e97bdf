// Package engineapi speaks over a socket to a Docker Engine, and to a plugin. A command line costs an emulated machine more than what it
// asks for (docker ps: 0.6 s of a processor, Docker 26.1), and hundreds of them at once would be the load. What a user types is
// typed in tests, too; what they only look at or clear away is asked for here.
package engineapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A Client sends requests to the server of a socket.
type Client struct{ *http.Client }

// Over returns who speaks over the socket at a path.
func Over(path string) Client {
	return Client{&http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// Engine is the Docker Engine of this machine.
func Engine() Client { return Over("/var/run/docker.sock") }

// Create makes a container that sleeps, on a network.
func (c Client) Create(name, network string) error {
	return c.do(http.MethodPost, "/containers/create?name="+name, map[string]any{
		"Image":      "lab",
		"Cmd":        []string{"sleep", "1000000"},
		"HostConfig": map[string]string{"NetworkMode": network},
	})
}

// Start starts a container.
func (c Client) Start(name string) error {
	return c.do(http.MethodPost, "/containers/"+name+"/start", nil)
}

// Stop kills what runs in a container.
func (c Client) Stop(name string) error {
	return c.do(http.MethodPost, "/containers/"+name+"/stop?t=0", nil)
}

// Remove removes a container, whether it runs or not.
func (c Client) Remove(name string) error {
	return c.do(http.MethodDelete, "/containers/"+name+"?force=1", nil)
}

// RemoveNetwork removes a network, on which nothing may be any more.
func (c Client) RemoveNetwork(name string) error {
	return c.do(http.MethodDelete, "/networks/"+name, nil)
}

// On are the containers that run on a network, by their IDs.
func (c Client) On(network string) (ids []string, err error) {
	var n struct{ Containers map[string]struct{} }
	err = c.Read("/networks/"+network, &n)
	for id := range n.Containers {
		ids = append(ids, id)
	}
	return ids, err
}

// Inspect is what the engine knows of a container.
func (c Client) Inspect(container string) (map[string]any, error) {
	body, err := c.Ask(http.MethodGet, "/containers/"+container+"/json", nil)
	if err != nil {
		return nil, err
	}
	var what map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	err = d.Decode(&what)
	return what, err
}

// do asks for something to be done.
func (c Client) do(method, path string, what any) error {
	_, err := c.Ask(method, path, what)
	return err
}

// ErrGone is about something that is not there, or not any more.
var ErrGone = errors.New("is not there")

// Read asks about something.
func (c Client) Read(path string, into any) error {
	body, err := c.Ask(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// Ask returns an answer. That there was nothing to do is none.
func (c Client) Ask(method, path string, what any) ([]byte, error) {
	var said io.Reader
	if what != nil {
		text, err := json.Marshal(what)
		if err != nil {
			return nil, err
		}
		said = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, "http://engine"+path, said)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	text := strings.TrimSpace(string(body))
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusNotFound:
		err = fmt.Errorf("%s: %w", text, ErrGone)
	case resp.StatusCode >= http.StatusBadRequest:
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return body, err
}
