// Package registry is a registry for tests, on this machine's loopback, of which an engine asks no certificate. It forgets
// everything when it is closed.
package registry

import (
	"io"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Serve serves a registry at an address of the loopback, such as 127.0.0.1:0, and returns where it is and what ends it.
func Serve(address string) (where string, end func() error, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	end = func() error {
		if err := s.Close(); err != nil {
			return err
		}
		if err := <-ended; err != http.ErrServerClosed {
			return err
		}
		return nil
	}
	return l.Addr().String(), end, nil
}
