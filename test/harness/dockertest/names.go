package dockertest

import (
	"fmt"
	"regexp"
	"strings"
)

// A kind of ID is where it stands, and with what the names begin that are given to it.
type kind struct {
	at     *regexp.Regexp
	letter string
}

// asked matches the random IDs in requests; answered what differs in answers from run to run: handles, MACs of devices, names of
// children, which are derived from the endpoint's ID, and random link-local addresses.
var (
	asked = []kind{
		{regexp.MustCompile(`"NetworkID":"([0-9a-f]{64})"`), "n"},
		{regexp.MustCompile(`"NetworkID":"([0-9a-z]{25})"`), "w"},
		{regexp.MustCompile(`"EndpointID":"([0-9a-f]{64})"`), "e"},
		{regexp.MustCompile(`/netns/([0-9a-f]{12})"`), "s"},
	}
	answered = []kind{
		{regexp.MustCompile(`"PoolID":"([^"]+)"`), "p"},
		{regexp.MustCompile(`"MacAddress":"([0-9a-f:]{17})"`), "m"},
		{regexp.MustCompile(`"SrcName":"(pt[0-9a-f]{12})"`), "d"},
		{regexp.MustCompile(`"Address":"(fe80:[0-9a-f:]+)/`), "a"},
	}
)

// since matches a time in an error and what follows it, in JSON.
var since = regexp.MustCompile(` since \d{4}-([^"\\]|\\.)*`)

// idNames gives names to IDs in the order of their first use.
type idNames struct {
	names map[string]string // by ID
	count map[string]int    // of names, by letter
}

// shorten replaces IDs by names, shortened IDs of 12 characters by names in capitals, and a time by "...".
func (n idNames) shorten(text string, kinds []kind) string {
	for _, k := range kinds {
		for _, m := range k.at.FindAllStringSubmatch(text, -1) {
			if n.names[m[1]] == "" {
				n.count[k.letter]++
				n.names[m[1]] = fmt.Sprintf("$%s%d", k.letter, n.count[k.letter])
			}
		}
	}
	for id, name := range n.names {
		text = strings.ReplaceAll(text, id, name)
		if len(id) == 64 {
			text = strings.ReplaceAll(text, id[:12], strings.ToUpper(name))
		}
	}
	return since.ReplaceAllString(text, " since ...")
}
