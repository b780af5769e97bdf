package main

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// TestInTurn: a layer with a place beside another waits for it, runs at the same time, and speaks after it; without the other it
// has its own turn.
func TestInTurn(t *testing.T) {
	unit, fuzz, lab := layer{name: "unit"}, layer{name: "fuzz", beside: "lab"}, layer{name: "lab"}
	for _, c := range []struct {
		layers []layer
		want   string
	}{
		{[]layer{unit, fuzz}, "unit false;fuzz false;"},
		{[]layer{unit, fuzz, lab}, "unit false;lab 20.10 false;fuzz true;lab 28.5 false;"},
	} {
		var out bytes.Buffer
		met := make(chan bool)
		inTurn(legs(c.layers, []string{"20.10", "28.5"}), &out, func(l *leg, out io.Writer, spare bool) {
			switch { // neither goes on before the other is at work
			case spare:
				met <- true
			case l.title() == "lab 20.10":
				<-met
			}
			_, _ = fmt.Fprintf(out, "%s %v;", l.title(), spare)
		})
		if got := out.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
