package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestTextLog: one line of text for each entry, warnings and errors apart from the rest, values with spaces in single quotes.
func TestTextLog(t *testing.T) {
	var out, errs strings.Builder
	log := newLogger(logText, &out, &errs, zapcore.DebugLevel)
	logCall(log, "T.Echo", false, subject{NetworkID: "0123456789abcdef"}, 1500*time.Microsecond, answer{outcome: outcomeOK})
	logCall(log, "T.Echo", false, subject{}, time.Second, answerOf(nil, errors.New("option vlan: \"x\" isn't allowed\nallowed: 0 to 4094")))
	log.With(zap.String("pool", "10.0.0.0/24")).Error("no\tpool", zap.NamedError("err", errors.New("a=b")), zap.Skip(), zap.String("empty", ""))
	log.Info("decisions since start", zap.Any("count", map[string]int64{"b": 2, "a": 1}), zap.Strings("names", []string{"x", "y"}))
	logPayload(log, "T.Echo", []byte(`{"Count":1}`), answer{status: 200, body: []byte(`{"A":"it's"}`)})
	for _, got := range []struct{ name, text, want string }{
		{"out", out.String(), `T info call op=T.Echo network=0123456789ab dur=1.5ms outcome=ok
T info decisions since start count='a 1, b 2' names=x,y
T debug payload op=T.Echo request='{"Count":1}' status=200 answer='{"A":"it''s"}'
`},
		{"errors", errs.String(), `T warn call op=T.Echo dur=1s outcome=error err='option vlan: "x" isn''t allowed; allowed: 0 to 4094'
T error no pool pool=10.0.0.0/24 err='a=b' empty=''
`},
	} {
		text := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) `).ReplaceAllString(got.text, "T ")
		if diff := cmp.Diff(got.want, text); diff != "" {
			t.Errorf("%s (-want +got):\n%s", got.name, diff)
		}
	}
}

// TestJournalLog: where systemd's journal reads the lines, they have its prefix for the level, and no time.
func TestJournalLog(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	log := newLogger(logText, f, f, zapcore.DebugLevel)
	log.Debug("a")
	log.Info("b")
	log.Warn("c")
	log.Error("d")
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("<7>debug a\n<6>info b\n<4>warn c\n<3>error d\n", string(got)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if isJournal(f, "1:1") || isJournal(f, "") {
		t.Error("another stream is taken for the journal's")
	}
}
