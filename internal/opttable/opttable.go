// Package opttable has the options that users give as NAME=VALUE, as a table: the parser, the errors and the manual all come from
// its rows.
package opttable

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/agnivade/levenshtein"
)

// ErrNotAllowed is what an option's parser returns for a value that is not allowed. The table's error says which values are.
var ErrNotAllowed = errors.New("not allowed")

// An Option is one row of a table. Parse reads a value into the config C; any error means that the value is not allowed.
type Option[C any] struct {
	Name    string
	Values  string // the allowed values, in words
	Default string // what happens if the option is not given, in words
	Help    string
	Parse   func(c *C, value string) error
}

// A Table has the options of one kind. Noun names the kind in errors, such as "option" or "ipam option".
type Table[C any] struct {
	Noun    string
	Options []Option[C]
}

// Names returns the names of all options in the order of the table.
func (t Table[C]) Names() []string {
	names := make([]string, len(t.Options))
	for i, o := range t.Options {
		names[i] = o.Name
	}
	return names
}

// Find returns the option of a name, without regard to case. The error names the option that may have been meant; if there is none, it
// lists the known options in the order of the table.
func (t Table[C]) Find(name string) (Option[C], error) {
	for _, o := range t.Options {
		if strings.EqualFold(o.Name, name) {
			return o, nil
		}
	}
	if meant := t.nearest(name); meant != "" {
		return Option[C]{}, fmt.Errorf("%s %.64q: unknown; did you mean %s?", t.Noun, name, meant)
	}
	return Option[C]{}, fmt.Errorf("%s %.64q: unknown; known are %s", t.Noun, name, strings.Join(t.Names(), ", "))
}

// farthest is how many letters a name may be away from the option that is meant; at most half of its letters.
const farthest = 2

// nearest returns the option that a misspelt name is nearest to, "" if none is near.
func (t Table[C]) nearest(name string) (nearest string) {
	const longest = 64 // no option has such a name
	if len(name) > longest {
		return ""
	}
	least := min(farthest, len(name)/2) + 1
	for _, known := range t.Names() {
		if far := levenshtein.ComputeDistance(strings.ToLower(name), known); far < least {
			nearest, least = known, far
		}
	}
	return nearest
}

// Parse reads the value of one option into c. The error says which values are allowed, and quotes at most 64 characters of the value.
func (t Table[C]) Parse(c *C, name, value string) error {
	o, err := t.Find(name)
	if err != nil {
		return err
	}
	if err := o.Parse(c, value); err != nil {
		return fmt.Errorf("%s %s: %.64q is not allowed; allowed: %s", t.Noun, o.Name, value, o.Values)
	}
	return nil
}

// Sorted returns a table with the same options in alphabetical order.
func (t Table[C]) Sorted() Table[C] {
	sorted := slices.Clone(t.Options)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	return Table[C]{t.Noun, sorted}
}
