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

// asked are the IDs that engines draw; answered is what answers bring that is another each time: handles, the MACs of devices, the
// names of children, which are made of the endpoint's ID, and link-local addresses, which are drawn by lot.
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

// since is a time in an error, and what follows it.
var since = regexp.MustCompile(` since \d{4}-[^"]*`)

// idNames gives names to IDs in the order in which they are met.
type idNames struct {
	names map[string]string // by ID
	count map[string]int    // of names, by letter
}

// shorten puts names in the place of IDs, those too of which only the beginning is there, as people see them, and "..." in that of
// a time.
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
