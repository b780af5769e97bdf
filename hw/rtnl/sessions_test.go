package rtnl

import (
	"fmt"
	"strings"
	"testing"
)

// TestParseSessions reads tables as Linux 6.12 writes them: listeners, other ports and closed connections do not count.
func TestParseSessions(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for table, want := range map[string]string{
		head: "[]",
		head + "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0\n" +
			"   1: 0F02000A:0016 0202000A:D1A2 01 00000000:00000000 02:000AF5D6 00000000     0        0 8 4 0 20 4 31 10 -1\n" +
			"   2: 0F02000A:0016 0202000A:D1A4 01 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n" +
			"   3: 0100007F:0050 0100007F:D1A6 01 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n" +
			"   4: 0100007F:0016 0100007F:D1A6 06 00000000:00000000 02:000AF5D6 00000000     0        0 9 4 0 20 4 31 10 -1\n": "[10.0.2.15]",
		head + "   0: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:C350 01\n": "[2001:db8::1]",
		head + "   0: 0000000000000000FFFF00000F02000A:0016 0000000000000000FFFF00000202000A:C350 01\n": "[10.0.2.15]",
	} {
		got, err := parseSessions(strings.NewReader(table))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%v, %v; want %s of\n%s", got, err, want, table)
		}
	}
	_, err := parseSessions(strings.NewReader(head + "   0: XX:0016 0:0 01\n"))
	if err == nil || err.Error() != `address "XX": invalid value` {
		t.Errorf("garbage: %v", err)
	}
}
