package main

import (
	"context"
	"sync"
	"time"
)

// registrationWait is how long after the start of the process an endpoint waits for the engine's registration. An engine starts a managed plugin,
// waits for half a second, and registers it; a plugin that is no managed one is not always registered again (moby 29, daemon/pkg/plugin/manager_linux.go).
const registrationWait = 3 * time.Second

// A registration keeps endpoints waiting until the engine has registered a plugin that was restarted. An engine registers it as a new driver
// that knows nothing of what the old one had asked: a container whose start began before and ends after that fails with "remote network driver:
// endpoint not found" (moby 29, daemon/libnetwork/drivers/remote/driver.go, nwEndpoints).
type registration struct {
	once sync.Once
	done chan struct{}
}

// newRegistration returns a registration that is over after the given time.
func newRegistration(atMost time.Duration) *registration {
	r := &registration{done: make(chan struct{})}
	time.AfterFunc(atMost, r.seen)
	return r
}

func (r *registration) seen() { r.once.Do(func() { close(r.done) }) }

// wait waits for the registration; r may be nil.
func (r *registration) wait(ctx context.Context) {
	if r == nil {
		return
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// after notes a call that has been answered; r may be nil. An engine registers the drivers of a plugin one after the other, as plugin/config.json
// lists them: it asks what the IPAM driver can do when the network driver is registered (moby 29, daemon/pkg/plugin/store.go, CallHandler).
func (r *registration) after(op string) {
	if r != nil && op == "IpamDriver.GetCapabilities" {
		r.seen()
	}
}
