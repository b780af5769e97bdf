package main

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// TestRegistration: an endpoint that is asked for right after the start of the process waits until the engine has registered the plugin, and not
// for ever for an engine that does not.
func TestRegistration(t *testing.T) {
	for _, tt := range []struct {
		name       string
		registered time.Duration // after the endpoint was asked for; 0 for never
		want       time.Duration
	}{
		{"a managed plugin is registered", 500 * time.Millisecond, 500 * time.Millisecond},
		{"no engine registers the plugin again", 0, registrationWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls int
				endpoint, other, capabilities := echo(&calls), echo(&calls), echo(&calls)
				endpoint.op, other.op, capabilities.op = "NetworkDriver.CreateEndpoint", "NetworkDriver.DeleteEndpoint", "IpamDriver.GetCapabilities"
				endpoint.flags = registered
				s := newServer([]route{endpoint, other, capabilities}, quick(), zap.NewNop())
				s.engine = newRegistration(registrationWait)
				ctx, stop := context.WithCancel(t.Context())
				listener, ended := newPipeListener(), make(chan error, 1)
				go func() { ended <- s.serve(ctx, listener) }()
				took := func(op string) time.Duration {
					start := time.Now()
					resp, err := listener.client().Post("http://p/"+op, "", strings.NewReader(`{"Count":1}`))
					if err != nil || resp.StatusCode != http.StatusOK {
						t.Errorf("%s: %v, %v", op, resp, err)
						return 0
					}
					_ = resp.Body.Close()
					return time.Since(start)
				}
				if tt.registered > 0 {
					time.AfterFunc(tt.registered, func() { took(capabilities.op) })
				}
				if got := took(other.op); got > 0 {
					t.Errorf("a call that is no endpoint's took %s", got)
				}
				if got := took(endpoint.op); got != tt.want {
					t.Errorf("the endpoint took %s, not %s", got, tt.want)
				}
				if got := took(endpoint.op); got > 0 {
					t.Errorf("the next one took %s", got)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
