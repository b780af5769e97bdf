package dashboard

import (
	"encoding/xml"
	"errors"
	"html"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/promtest"
)

// repository is the path of the repository from this package's folder, and pictures the file in it that is drawn.
const (
	repository = "../../../"
	pictures   = "docs/dashboard.svg"
)

// TestDraw: a graph has a line for each series, broken where there is no value, and names the largest; the text is XML.
func TestDraw(t *testing.T) {
	from := time.Unix(1000, 0)
	panel := func(kind, title, unit string) promtest.Panel {
		p := promtest.Panel{Type: kind, Title: title}
		p.FieldConfig.Defaults.Unit = unit
		return p
	}
	line := func(name string, values ...float64) series {
		s := series{name: name}
		for i, v := range values {
			s.Points = append(s.Points, promtest.Point{At: from.Add(time.Duration(i) * time.Minute), Value: v})
		}
		return s
	}
	many := []series{line("zero", 0, 0), line("a & b", 1, math.NaN(), 3), line("half", .5, .5), line("none", 0), line("least", .1)}
	row := line("", 90)
	row.Metric = map[string]string{"label": "vf 0 of ens1f0", "state": "lent"}
	got := draw("<title>", []shown{{panel("stat", "Ready", "short"), []series{line("host1", 1)}}, {panel("timeseries", "Calls", "s"), many},
		{panel("table", "Devices", "s"), []series{row}}}, from, from.Add(2*time.Minute))
	for d := xml.NewDecoder(strings.NewReader(got)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v:\n%s", err, got)
		}
	}
	for _, want := range []string{"&lt;title&gt;", ">Ready<", ">Calls<", ">seconds<", ">a &amp; b<", ">half<", ">and 2 that are 0 or smaller<", ">2 min<",
		">vf 0 of ens1f0<", ">90 s<", `d="M66 134h.1M488 34h.1"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, ">zero<") {
		t.Errorf("a series that is zero throughout is named:\n%s", got)
	}
}

// TestFormat: values have at most three digits that matter.
func TestFormat(t *testing.T) {
	for _, c := range []struct {
		v          float64
		unit, want string
	}{{0, "s", "0 s"}, {.0123, "s", "12.3 ms"}, {1234567, "bps", "1.23M"}, {.5, "percentunit", "50 %"}, {65536, "bytes", "64 KiB"}, {-1500, "pps", "-1.5k"}, {7, "short", "7"}} {
		if got := format(c.v, c.unit); got != c.want {
			t.Errorf("%g in %s is %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

// TestNamed: a legend has the labels that a series has.
func TestNamed(t *testing.T) {
	if got := named("{{pf}} {{vf}} {{container}} in", map[string]string{"pf": "ens1f0", "vf": "0"}); got != "ens1f0 0 in" {
		t.Errorf("%q", got)
	}
}

// TestPictures: the pictures show each panel that the dashboard has, but those of what the NIC of the lab does not count, and no other one.
func TestPictures(t *testing.T) {
	svg, err := os.ReadFile(repository + pictures)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range promtest.Panels(t, repository, "1m") {
		counted := !strings.Contains(p.Targets[0].Expr, "passthrough_vf_")
		if drawn := strings.Contains(string(svg), ">"+html.EscapeString(p.Title)+"<"); drawn != counted {
			t.Errorf("panel %q: drawn %v, want %v; make dashboard draws %s", p.Title, drawn, counted, pictures)
		}
	}
}
