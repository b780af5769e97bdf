package record

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// A Lister is a record whose type lists its fields, so that it is encoded and decoded without reflection. What a [Codec] does with it is
// exactly what package json would do; what a Codec cannot do, package json does.
type Lister interface {
	// ListFields calls a method of c for each field, in the order of the struct and under its name in JSON.
	ListFields(c *Codec)
}

// A Codec encodes a record, or decodes one that has the form in which records are encoded: members in their order, no white space, and strings
// that have no escapes. The methods for fields omit those that are empty, as the options omitempty and omitzero of package json.
type Codec struct {
	decodes bool
	text    []byte // what was encoded, or what is left to decode
	members int
	failed  bool      // package json has to do it
	space   [192]byte // of a text of usual length
}

// encodeFields encodes a record. It returns false if a Codec cannot.
func encodeFields(rec Lister) ([]byte, bool) {
	c := &Codec{}
	c.text = append(c.space[:0], '{')
	rec.ListFields(c)
	return append(c.text, '}'), !c.failed
}

// decodeFields decodes a record into one that is zero. It returns false if a Codec cannot; then the record may be half decoded.
func decodeFields(text []byte, rec Lister) bool {
	if len(text) < 2 || text[0] != '{' {
		return false
	}
	c := Codec{decodes: true, text: text[1:]}
	rec.ListFields(&c)
	return !c.failed && string(c.text) == "}"
}

// Fail leaves the record to package json if it has what a Codec has no method for.
func (c *Codec) Fail(has bool) { c.failed = c.failed || has }

// Version is the field "v", which is never omitted.
func (c *Codec) Version(field *int) {
	if !c.decodes {
		c.begin("v")
		c.text = strconv.AppendInt(c.text, int64(*field), 10)
		return
	}
	if !c.next("v") {
		return
	}
	n := 0
	for n < len(c.text) && c.text[n] >= '0' && c.text[n] <= '9' {
		n++
	}
	version, err := strconv.ParseUint(string(c.text[:n]), 10, 31)
	if err != nil || n > 1 && c.text[0] == '0' {
		c.failed = true
		return
	}
	*field, c.text = int(version), c.text[n:]
}

// Bool is a field of type bool.
func (c *Codec) Bool(name string, field *bool) {
	const yes = "true"
	switch {
	case !c.decodes && *field:
		c.begin(name)
		c.text = append(c.text, yes...)
	case c.decodes && c.next(name):
		if len(c.text) < len(yes) || string(c.text[:len(yes)]) != yes {
			c.failed = true
			return
		}
		*field, c.text = true, c.text[len(yes):]
	}
}

// String is a field of a string type.
func String[T ~string](c *Codec, name string, field *T) {
	switch {
	case !c.decodes && *field != "":
		c.begin(name)
		c.quote(string(*field))
	case c.decodes:
		if text, ok := c.quoted(name); ok {
			*field = T(text)
		}
	}
}

// Time is a field of type [time.Time].
func (c *Codec) Time(name string, field *time.Time) { textField(c, name, field, field.IsZero()) }

// Addr is a field of type [netip.Addr].
func (c *Codec) Addr(name string, field *netip.Addr) {
	textField(c, name, field, *field == netip.Addr{})
}

// Prefix is a field of type [netip.Prefix].
func (c *Codec) Prefix(name string, field *netip.Prefix) {
	textField(c, name, field, *field == netip.Prefix{})
}

// Map is a field of type map[string]string. It is not decoded.
func (c *Codec) Map(name string, field map[string]string) {
	if c.decodes || len(field) == 0 {
		return
	}
	c.begin(name)
	c.text = append(c.text, '{')
	for i, key := range slices.Sorted(maps.Keys(field)) {
		if i > 0 {
			c.text = append(c.text, ',')
		}
		c.quote(key)
		c.text = append(c.text, ':')
		c.quote(field[key])
	}
	c.text = append(c.text, '}')
}

// textField is a field whose type has a text, which is a string in JSON.
func textField[P interface {
	AppendText([]byte) ([]byte, error)
	UnmarshalText([]byte) error
}](c *Codec, name string, field P, empty bool) {
	if c.decodes {
		if text, ok := c.quoted(name); ok && field.UnmarshalText(text) != nil {
			c.failed = true
		}
		return
	}
	if empty {
		return
	}
	c.begin(name)
	start := len(c.text)
	text, err := field.AppendText(append(c.text, '"'))
	c.failed = c.failed || err != nil || !isPlain(text[start+1:])
	c.text = append(text, '"')
}

// begin encodes the name of a member.
func (c *Codec) begin(name string) {
	if c.members++; c.members > 1 {
		c.text = append(c.text, ',')
	}
	c.text = append(append(append(c.text, '"'), name...), '"', ':')
}

// quote encodes a string.
func (c *Codec) quote(s string) {
	c.failed = c.failed || !isPlain(s)
	c.text = append(append(append(c.text, '"'), s...), '"')
}

// next returns true if the next member has this name, and is then at its value.
func (c *Codec) next(name string) bool {
	at := 0
	if c.members > 0 {
		at = 1 // after a comma
	}
	end := at + len(name) + 3
	if c.failed || len(c.text) < end || at > 0 && c.text[0] != ',' || c.text[at] != '"' || string(c.text[at+1:end-2]) != name ||
		c.text[end-2] != '"' || c.text[end-1] != ':' {
		return false
	}
	c.members++
	c.text = c.text[end:]
	return true
}

// quoted decodes a string, if the next member has this name.
func (c *Codec) quoted(name string) ([]byte, bool) {
	if !c.next(name) {
		return nil, false
	}
	if len(c.text) > 0 && c.text[0] == '"' {
		rest := c.text[1:]
		if end := bytes.IndexByte(rest, '"'); end >= 0 && isPlain(rest[:end]) {
			c.text = rest[end+1:]
			return rest[:end], true
		}
	}
	c.failed = true
	return nil, false
}

// isPlain returns true if package json encodes each character of a string as itself.
func isPlain[T string | []byte](s T) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b < ' ', b > '~', b == '"', b == '\\', b == '<', b == '>', b == '&':
			return false
		}
	}
	return true
}
