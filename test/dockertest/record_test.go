package dockertest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTranscriptOf: an engine's log with the plugin's in it becomes a transcript; nothing else of it does.
func TestTranscriptOf(t *testing.T) {
	network, endpoint := strings.Repeat("0a", 32), strings.Repeat("1b", 32)
	log := strings.ReplaceAll(strings.ReplaceAll(strings.Join([]string{
		`time="2026-11-21T12:00:00.1Z" level=info msg="API listen on /run/docker.sock"`,
		`time="2026-11-21T12:00:01.2Z" level=info msg="{\"level\":\"info\",\"ts\":\"T\",\"msg\":\"call\",\"op\":\"NetworkDriver.Join\"}" plugin=abc`,
		`time="2026-11-21T12:00:01.2Z" level=info msg="{\"level\":\"debug\",\"ts\":\"T\",\"msg\":\"said\",\"op\":\"NetworkDriver.GetCapabilities\",` +
			`\"request\":\"\",\"status\":200,\"answer\":\"{\\\"Scope\\\":\\\"local\\\"}\"}" plugin=abc`,
		`time="2026-11-21T12:00:02.2Z" level=info msg="{\"level\":\"debug\",\"ts\":\"T\",\"msg\":\"said\",\"op\":\"IpamDriver.RequestAddress\",` +
			`\"request\":\"{\\\"PoolID\\\":\\\"v1:77\\\",\\\"Options\\\":null}\",\"status\":200,\"answer\":\"{\\\"Address\\\":\\\"10.0.0.1/24\\\"}\"}" plugin=abc`,
		`time="2026-11-21T12:00:03.2Z" level=info msg="{\"level\":\"debug\",\"ts\":\"T\",\"msg\":\"said\",\"op\":\"NetworkDriver.CreateEndpoint\",` +
			`\"request\":\"{\\\"NetworkID\\\":\\\"NET\\\",\\\"EndpointID\\\":\\\"EP\\\"}\",\"status\":500,\"answer\":\"\",\"err\":\"a \\\"no\\\"\"}" plugin=abc`,
		`time="2026-11-21T12:00:04.2Z" level=info msg="{\"level\":\"debug\",\"ts\":\"T\",\"msg\":\"said\",\"op\":\"NetworkDriver.DeleteNetwork\",` +
			`\"request\":\"{\\\"NetworkID\\\":\\\"NET\\\"}\",\"status\":200,\"answer\":\"{}\"}" plugin=abc`,
	}, "\n"), "NET", network), "EP", endpoint)
	want := `> NetworkDriver.GetCapabilities
< {"Scope":"local"}
> IpamDriver.RequestAddress {"PoolID":"$p1","Options":null}
< {"Address":"10.0.0.1/24"}
> NetworkDriver.CreateEndpoint {"NetworkID":"$n1","EndpointID":"$e1"}
< 500 {"Err":"a \"no\""}
> NetworkDriver.DeleteNetwork {"NetworkID":"$n1"}
< {}
`
	if diff := cmp.Diff(want, transcriptOf(logged(log))); diff != "" {
		t.Error(diff)
	}
}
