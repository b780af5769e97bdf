// Flame draws a flame graph of the folded stacks that the plugin with the build tag profile has left:
//
//	go run ./figures/flame -root 'netdrv\.\(\*Driver\)' -title 'Seven starts' <calls.folded >storm.svg
//
// A stack counts from the first function that the expression matches; others are left out. The width of a function is the time that calls were in it,
// several calls at once counted each.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"hash/fnv"
	"html"
	"io"
	"log"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A frame is a function of stacks that are the same up to it.
type frame struct {
	samples int
	calls   map[string]*frame
}

const (
	width  = 1200.0 // of the picture, px
	height = 17     // of a frame, px
	letter = 6.4    // width of one, px
	least  = 0.004  // of the whole; what is less wide is not drawn
)

func main() {
	root := flag.String("root", ".", "expression of the function that a stack begins with")
	title := flag.String("title", "", "of the picture")
	flag.Parse()
	all, err := read(os.Stdin, regexp.MustCompile(*root))
	if err == nil {
		err = draw(os.Stdout, all, *title)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// read returns the root of all stacks.
func read(r io.Reader, root *regexp.Regexp) (*frame, error) {
	all := &frame{calls: map[string]*frame{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		at := strings.LastIndexByte(lines.Text(), ' ')
		if at < 0 {
			return nil, fmt.Errorf("no count: %q", lines.Text())
		}
		n, err := strconv.Atoi(lines.Text()[at+1:])
		if err != nil {
			return nil, err
		}
		names := strings.Split(lines.Text()[:at], ";")
		if first := slices.IndexFunc(names, root.MatchString); first >= 0 {
			all.add(names[first:], n)
		}
	}
	if all.samples == 0 {
		return nil, fmt.Errorf("no stack matches %s", root)
	}
	return all, lines.Err()
}

func (f *frame) add(names []string, n int) {
	f.samples += n
	if len(names) == 0 {
		return
	}
	next := f.calls[names[0]]
	if next == nil {
		next = &frame{calls: map[string]*frame{}}
		f.calls[names[0]] = next
	}
	next.add(names[1:], n)
}

// depth returns how many frames are above one another, of those that are drawn.
func (f *frame) depth(all int) (most int) {
	for _, c := range f.calls {
		if float64(c.samples) >= least*float64(all) {
			most = max(most, 1+c.depth(all))
		}
	}
	return most
}

// draw writes the picture: the root at the bottom.
func draw(w io.Writer, all *frame, title string) error {
	bottom := (all.depth(all.samples) + 2) * height
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %d" font-family="monospace" font-size="10.5">`+"\n", width, bottom)
	fmt.Fprintf(out, `<rect width="100%%" height="100%%" fill="#fff"/><text x="6" y="14" font-size="13">%s</text>`+"\n", html.EscapeString(title))
	all.drawCalls(out, 0, bottom-height, all.samples)
	fmt.Fprintln(out, `</svg>`)
	return out.Flush()
}

func (f *frame) drawCalls(w io.Writer, x float64, y, all int) {
	for _, name := range slices.Sorted(maps.Keys(f.calls)) {
		c := f.calls[name]
		share := float64(c.samples) / float64(all)
		if share < least {
			continue
		}
		short := name[strings.LastIndexByte(name, '/')+1:]
		fmt.Fprintf(w, `<g><title>%s: %.1f %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#fff" stroke-width="0.5"/>`,
			html.EscapeString(name), 100*share, x, y, width*share, height, colour(short))
		if room := int(width*share/letter) - 1; room >= 3 {
			if len(short) > room {
				short = short[:room-1] + "…"
			}
			fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`, x+3, y+height-5, html.EscapeString(short))
		}
		fmt.Fprintln(w, `</g>`)
		c.drawCalls(w, x, y-height, all)
		x += width * share
	}
}

// colour returns a warm colour, the same for all functions of a package.
func colour(name string) string {
	pkg, _, _ := strings.Cut(name, ".")
	h := fnv.New32a()
	_, _ = io.WriteString(h, pkg)
	n := h.Sum32()
	return fmt.Sprintf("#%02x%02x%02x", 215+n%40, 120+n>>8%110, 60+n>>16%60)
}
