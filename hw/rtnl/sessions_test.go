package rtnl

import (
	"fmt"
	"strings"
	"testing"
)

// TestParseSessions reads tables as Linux 6.12 writes them: a connection counts if a program listens on its port, or if the port is
// that of ssh. Closed connections and those that the host has opened do not count.
func TestParseSessions(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for table, want := range map[string]string{
		head: "[]",
		head + "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0\n" +
			"   1: 0F02000A:0016 0202000A:D1A2 01 00000000:00000000 02:000AF5D6 00000000     0        0 8 4 0 20 4 31 10 -1\n" +
			"   2: 0F02000A:0016 0202000A:D1A4 01 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n" +
			"   3: 0100007F:0050 0100007F:D1A6 01 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n" +
			"   4: 0100007F:0016 0100007F:D1A6 06 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n": "[10.0.2.15:22]",
		head + "   0: 00000000:20FB 00000000:0000 0A\n   1: 0F02000A:20FB 0202000A:D1A2 01\n   2: 0F02000A:C000 0202000A:20FB 01\n": "[10.0.2.15:8443]",
		head + "   0: 0F02000A:20FB 00000000:0000 0A\n   1: 0E02000A:20FB 0202000A:D1A2 01\n":                                       "[]",
		head + "   0: 00000000000000000000000000000000:20FB 0:0 0A\n   1: 0F02000A:20FB 0202000A:D1A2 01\n":                         "[10.0.2.15:8443]",
		head + "   0: 00000000:20FB 0:0 0A\n   1: B80D0120000000000000000001000000:20FB 0:0 01\n":                                   "[]",
		head + "   0: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:C350 01\n":                             "[[2001:db8::1]:22]",
		head + "   0: 0000000000000000FFFF00000F02000A:0016 0000000000000000FFFF00000202000A:C350 01\n":                             "[10.0.2.15:22]",
	} {
		var all tcpSockets
		err := all.parse(strings.NewReader(table))
		if got := fmt.Sprint(all.sessions()); err != nil || got != want {
			t.Errorf("%s, %v; want %s of\n%s", got, err, want, table)
		}
	}
	for text, want := range map[string]string{"XX:0016": `address "XX": invalid value`, "0F02000A:XX": `port "XX": invalid value`} {
		var all tcpSockets
		if err := all.parse(strings.NewReader(head + "   0: " + text + " 0:0 01\n")); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}
