package dashboard

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mellanox/passthrough/test/harness/promtest"
)

// A shown is a panel with what it shows: series over the time of the run, or, of a stat and a table, at one moment of it.
type shown struct {
	promtest.Panel
	series []series
}

// A series has the name that the legend gives it.
type series struct {
	promtest.Series
	name string
}

// In pixels. Most panels is how many series a panel shows: those with the largest values.
const (
	width, gap            = 1040, 12
	half, quarter         = (width - 3*gap) / 2, (width - 5*gap) / 4
	plot, left, right     = 150, 66, 14
	head, foot, line      = 34, 24, 17
	most                  = 10
	statHeight, rowHeight = 84, 20
)

// style has the colours for light and for dark pages. Colours of series differ from both backgrounds by at least 4.5 to 1.
const style = `.b{fill:#ffffff}.p{fill:#ffffff;stroke:#d0d7de}.t{fill:#1f2328}.m{fill:#59636e}.g{stroke:#d8dee4;fill:none}` +
	`.l{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}.k{stroke-width:4;fill:none}` +
	`.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.c4{stroke:#cf222e}.c5{stroke:#7d6200}.c6{stroke:#136c72}` +
	`.c7{stroke:#bf3989}.c8{stroke:#57606a}.c9{stroke:#5a3e9b}` +
	`@media (prefers-color-scheme:dark){.b{fill:#0d1117}.p{fill:#0d1117;stroke:#3d444d}.t{fill:#f0f6fc}.m{fill:#9198a1}.g{stroke:#2f353d}` +
	`.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.c4{stroke:#ff7b72}.c5{stroke:#d29922}.c6{stroke:#39c5cf}` +
	`.c7{stroke:#f778ba}.c8{stroke:#9198a1}.c9{stroke:#a5b4fc}}`

// units are what Grafana's units are called at a panel's title.
var units = map[string]string{"short": "", "s": "seconds", "bps": "bit/s", "pps": "packets/s", "cps": "per second", "percentunit": "", "bytes": "bytes"}

// draw returns the panels as one SVG, as the dashboard has them: stats side by side, graphs in two columns, a table over the whole width.
func draw(title string, panels []shown, from, to time.Time) string {
	var out strings.Builder
	x, y, row := gap, gap, 0 // where the next panel is, and the height of those beside it
	place := func(w, h int, inside string) {
		if x+w > width {
			x, y, row = gap, y+row+gap, 0
		}
		fmt.Fprintf(&out, "<g transform=\"translate(%d %d)\">\n<rect class=\"p\" width=\"%d\" height=\"%d\" rx=\"5\"/>\n%s</g>\n", x, y, w, h, inside)
		x, row = x+w+gap, max(row, h)
	}
	for _, p := range panels {
		switch p.Type {
		case "stat":
			place(quarter, statHeight, p.stat())
		case "table":
			place(width-2*gap, head+rowHeight*(len(p.series)+1)+8, p.table())
		default:
			kept, others := p.largest()
			p.series = kept
			place(half, head+plot+foot+line*(len(kept)+min(others, 1))+6, p.graph(from, to, others))
		}
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12.5\">\n"+
		"<title>%s</title>\n<style>%s</style>\n<rect class=\"b\" width=\"100%%\" height=\"100%%\"/>\n%s</svg>\n",
		width, y+row+gap, html.EscapeString(title), style, out.String())
}

// text is a line of text; more are further attributes.
func text(x, y float64, class, what string, more ...string) string {
	return fmt.Sprintf("<text class=\"%s\" x=\"%s\" y=\"%s\"%s>%s</text>\n", class, number(x), number(y), strings.Join(append([]string{""}, more...), " "),
		html.EscapeString(what))
}

const bold, end, middle = `font-weight="bold"`, `text-anchor="end"`, `text-anchor="middle"`

func number(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }

func (p shown) heading() string {
	s := text(12, 21, "t", p.Title, bold, `font-size="13.5"`)
	if u := units[p.FieldConfig.Defaults.Unit]; u != "" {
		s += text(half-12, 21, "m", u, end)
	}
	return s
}

// stat is the value at the moment, with its legend.
func (p shown) stat() string {
	s := text(12, 21, "t", p.Title, bold, `font-size="13.5"`)
	for _, v := range p.series[:min(len(p.series), 1)] {
		if p.Options.TextMode == "name" {
			return s + text(12, 54, "t", v.name, `font-size="17"`)
		}
		s += text(12, 54, "t", format(v.Points[0].Value, p.FieldConfig.Defaults.Unit), `font-size="26"`) + text(12, 73, "m", v.name)
	}
	return s
}

// table has the labels of each series that say something, and its value.
func (p shown) table() string {
	columns := []struct {
		label string
		at    float64
	}{{"label", 12}, {"mode", 290}, {"state", 390}, {"network", 500}, {"container", 630}, {"vlan", 760}}
	value := float64(width - 2*gap - 12)
	s := text(12, 21, "t", p.Title, bold, `font-size="13.5"`) + text(value, head+12, "m", "value", end)
	for _, c := range columns {
		s += text(c.at, head+12, "m", c.label)
	}
	slices.SortFunc(p.series, func(a, b series) int { return cmp.Compare(a.Metric["label"], b.Metric["label"]) })
	for i, v := range p.series {
		y := float64(head + rowHeight*(i+1) + 14)
		s += fmt.Sprintf("<path class=\"g\" d=\"M12 %sH%s\"/>\n", number(y-14), number(value))
		for _, c := range columns {
			s += text(c.at, y, "t", v.Metric[c.label])
		}
		s += text(value, y, "t", format(v.Points[0].Value, p.FieldConfig.Defaults.Unit), end)
	}
	return s
}

// largest returns the series with the largest values, at most so many as there are colours, and the number of the others. Where one is not zero,
// those that are zero throughout are among the others.
func (p shown) largest() (kept []series, others int) {
	peak := func(s series) (top float64) {
		for _, at := range s.Points {
			if !math.IsNaN(at.Value) {
				top = max(top, math.Abs(at.Value))
			}
		}
		return top
	}
	kept = slices.Clone(p.series)
	slices.SortStableFunc(kept, func(a, b series) int { return cmp.Compare(peak(b), peak(a)) })
	n := min(len(kept), most)
	if len(kept) > 4 && peak(kept[0]) > 0 {
		for n > 1 && peak(kept[n-1]) == 0 {
			n--
		}
	}
	return kept[:n], len(kept) - n
}

// graph is the lines of the series, with axes and a legend.
func (p shown) graph(from, to time.Time, others int) string {
	unit := p.FieldConfig.Defaults.Unit
	low, high, step := p.scale()
	at := func(v float64) float64 { return head + plot*(high-v)/(high-low) }
	when := func(t time.Time) float64 {
		return left + (half-left-right)*t.Sub(from).Seconds()/to.Sub(from).Seconds()
	}
	s := p.heading()
	for v := low; v <= high+step/2; v += step {
		s += fmt.Sprintf("<path class=\"g\" d=\"M%d %sH%d\"/>\n", left, number(at(v)), half-right) + text(left-6, at(v)+4, "m", format(v, unit), end)
	}
	every := time.Minute
	for to.Sub(from)/every > 8 {
		every *= 2
	}
	for d := time.Duration(0); d <= to.Sub(from); d += every {
		s += text(when(from.Add(d)), head+plot+16, "m", fmt.Sprintf("%d min", int(d.Minutes())), middle)
	}
	for i, v := range p.series {
		s += fmt.Sprintf("<path class=\"l c%d\" d=\"%s\"/>\n", i, path(v.Points, when, at))
		y := float64(head + plot + foot + line*i + 11)
		s += fmt.Sprintf("<path class=\"k c%d\" d=\"M%d %sh14\"/>\n", i, left-20, number(y-4)) + text(left, y, "t", v.name)
	}
	if others > 0 {
		s += text(left, float64(head+plot+foot+line*len(p.series)+11), "m", fmt.Sprintf("and %d that are 0 or smaller", others))
	}
	return s
}

// path is the line through points. A value that is no number, such as a quantile of no calls, ends a line; one alone is a dot.
func path(points []promtest.Point, when func(time.Time) float64, at func(float64) float64) string {
	var d []string
	command := "M"
	for i, p := range points {
		if math.IsNaN(p.Value) {
			command = "M"
			continue
		}
		d = append(d, command+number(when(p.At))+" "+number(at(p.Value)))
		if alone := i+1 == len(points) || math.IsNaN(points[i+1].Value); alone && command == "M" {
			d = append(d, "h.1")
		}
		command = "L"
	}
	return strings.Join(d, "")
}

// scale returns the ends of the axis of values, and what is between two of its lines: 1, 2 or 5 times a power of ten, three to seven times.
func (p shown) scale() (low, high, step float64) {
	for _, s := range p.series {
		for _, at := range s.Points {
			if !math.IsNaN(at.Value) {
				low, high = min(low, at.Value), max(high, at.Value)
			}
		}
	}
	unit := 1.0
	if p.FieldConfig.Defaults.Unit == "bytes" {
		unit = 1024
	}
	if low == high {
		high = unit
	}
	step = unit * math.Pow(10, math.Ceil(math.Log10((high-low)/unit/2)))
	for _, divisor := range []float64{2, 2.5, 2} { // to 5, 2 and 1 times the power below
		if (high-low)/step >= 3 {
			break
		}
		step /= divisor
	}
	if p.FieldConfig.Defaults.Unit == "short" {
		step = max(step, 1)
	}
	return math.Floor(low/step) * step, math.Ceil(high/step) * step, step
}

// format is a value with at most three digits that matter, and the prefix of its unit.
func format(v float64, unit string) string {
	prefixes, base := []string{"", "k", "M", "G"}, 1000.0
	switch {
	case unit == "percentunit":
		return digits(100*v) + " %"
	case unit == "s" && math.Abs(v) < 1 && v != 0:
		return digits(1000*v) + " ms"
	case unit == "s":
		return digits(v) + " s"
	case unit == "bytes":
		prefixes, base = []string{" B", " KiB", " MiB", " GiB"}, 1024
	}
	i := 0
	for math.Abs(v) >= base && i < len(prefixes)-1 {
		v, i = v/base, i+1
	}
	return digits(v) + prefixes[i]
}

func digits(v float64) string {
	if math.Abs(v) < 1e-9 {
		return "0"
	}
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// placeholder is a label in a legend.
var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

// named returns the name that a legend gives a series. Labels that it does not have are left out.
func named(legend string, labels map[string]string) string {
	name := placeholder.ReplaceAllStringFunc(legend, func(p string) string { return labels[p[2:len(p)-2]] })
	return strings.Join(strings.Fields(name), " ")
}
