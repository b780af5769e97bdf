// Plots draws pictures of figures that make bench-attach and make bench-cluster have left in files:
//
//	go run ./figures/plots -attach bench-attach.json -cluster bench-cluster.json -to ../../../docs
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/mellanox/passthrough/test/suites/bench/figures"
)

// A line is what one side took, over how much there was.
type line struct {
	name   string
	column string         // of the figures
	match  *regexp.Regexp // their names; its group is the value of x
	color  color.Color
}

// A picture has lines; both axes are logarithmic, or none.
type picture struct {
	from, to string // files
	title, x string
	unit     time.Duration // of y
	log      bool
	lines    []line
}

var (
	blue   = color.RGBA{0x1f, 0x6f, 0xb4, 0xff}
	orange = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	green  = color.RGBA{0x2c, 0x8c, 0x4a, 0xff}
)

func main() {
	attach := flag.String("attach", "", "figures of make bench-attach")
	cluster := flag.String("cluster", "", "figures of make bench-cluster")
	to := flag.String("to", ".", "folder for the pictures")
	flag.Parse()
	storm := regexp.MustCompile(`^P10 (\d+) starts at once: each$`)
	fill := func(what string) *regexp.Regexp { return regexp.MustCompile(`^` + what + `, (\d+) % full, one node$`) }
	for _, p := range []picture{
		{*attach, "starts.svg", "A start, with others at once", "containers that start at once", time.Second, true, []line{
			{"mode=macvlan", "ours", storm, blue}, {"the engine's macvlan", "other", storm, orange}}},
		{*cluster, "allocations.svg", "An address of a pool in etcd", "percent of the pool in use", time.Millisecond, false, []line{
			{"a million addresses", "/12", fill("allocation"), blue}, {"16 thousand addresses", "/18", fill("allocation"), green},
			{"bare etcd transaction", "/12", fill("bare transaction"), orange}}},
	} {
		if p.from == "" {
			continue
		}
		if err := p.draw(filepath.Join(*to, p.to)); err != nil {
			log.Fatal(err)
		}
	}
}

// draw writes a picture.
func (p picture) draw(file string) error {
	raw, err := os.ReadFile(p.from)
	if err != nil {
		return err
	}
	var all []figures.Figure
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("%s: %w", p.from, err)
	}
	drawn := plot.New()
	drawn.Title.Text, drawn.X.Label.Text = p.title, p.x
	drawn.Y.Label.Text = fmt.Sprintf("%s: median, 99 %% dashed", map[time.Duration]string{time.Second: "s", time.Millisecond: "ms"}[p.unit])
	if p.log {
		drawn.X.Scale, drawn.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		drawn.Y.Scale, drawn.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	drawn.Legend.Top, drawn.Legend.Left = true, true
	drawn.Add(plotter.NewGrid())
	for _, l := range p.lines {
		for _, q := range []float64{0.5, 0.99} {
			points := l.points(all, q, p.unit)
			if len(points) == 0 {
				return fmt.Errorf("%s: no figures of %s match %s", p.from, l.column, l.match)
			}
			of, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return err
			}
			of.Color, dots.Color = l.color, l.color
			drawn.Add(of, dots)
			if q == 0.5 {
				drawn.Legend.Add(l.name, of)
			} else {
				of.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			}
		}
	}
	if !p.log {
		drawn.Y.Min, drawn.Y.Max = 0, 1.3*drawn.Y.Max // with room for the legend
	}
	return drawn.Save(16*vg.Centimeter, 9*vg.Centimeter, file)
}

// points returns a quantile of each of a line's figures in the order of x.
func (l line) points(all []figures.Figure, q float64, unit time.Duration) (points plotter.XYs) {
	for _, f := range all {
		m := l.match.FindStringSubmatch(f.Name)
		if m == nil || f.Column != l.column || len(f.Raw) == 0 {
			continue
		}
		x, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			continue
		}
		var took []time.Duration
		for _, s := range f.Raw {
			took = append(took, time.Duration(s*float64(time.Second)))
		}
		points = append(points, plotter.XY{X: x, Y: float64(figures.Quantile(took, q)) / float64(unit)})
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return int(a.X - b.X) })
	return points
}
