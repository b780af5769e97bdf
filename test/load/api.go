package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// An api is one that is spoken over a socket. A command line for each of hundreds of containers would be the load.
type api struct{ *http.Client }

// overSocket is the API behind a socket.
func overSocket(path string) api {
	return api{&http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// create makes a container that sleeps, on a network.
func (a api) create(name, network string) error {
	return a.do(http.MethodPost, "/containers/create?name="+name, map[string]any{
		"Image":      "lab",
		"Cmd":        []string{"sleep", "1000000"},
		"HostConfig": map[string]string{"NetworkMode": network},
	})
}

// start starts a container.
func (a api) start(name string) error {
	return a.do(http.MethodPost, "/containers/"+name+"/start", nil)
}

// stop kills what runs in a container.
func (a api) stop(name string) error {
	return a.do(http.MethodPost, "/containers/"+name+"/stop?t=0", nil)
}

// remove removes a container, whether it runs or not.
func (a api) remove(name string) error {
	return a.do(http.MethodDelete, "/containers/"+name+"?force=1", nil)
}

// do asks for something to be done.
func (a api) do(method, path string, what any) error {
	_, err := a.ask(method, path, what)
	return err
}

// ask returns an answer. That there was nothing to do is none.
func (a api) ask(method, path string, what any) ([]byte, error) {
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
	resp, err := a.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
