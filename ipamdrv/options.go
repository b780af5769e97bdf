package ipamdrv

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/libnetwork/netlabel"
)

// An Option is one row of the table of --ipam-opt: all that the parser, the errors and the manual say about it.
type Option struct {
	Name    string
	Values  string // what is allowed, as it is told to people
	Default string // what happens when it is not given
	Help    string

	parse func(c *config, value string) (ok bool)
}

// Options is the table of the options of pools (docker network create --ipam-opt). It is read-only.
func Options() []Option { return slices.Clone(options) }

// config is what the options of a pool say. Its zero value is what a pool without options does.
type config struct {
	lowest     bool // choose the lowest address that is free, instead of going round
	quarantine time.Duration
	sticky     time.Duration
}

var options = []Option{
	{
		Name: "reuse", Values: "last or immediate", Default: "last",
		Help: "when an address that was released is chosen again: last, when all others have been (the choice goes round); " +
			"immediate, the lowest free address always comes first",
		parse: func(c *config, v string) bool { c.lowest = v == "immediate"; return c.lowest || v == "last" },
	},
	{
		Name: "quarantine", Values: "a duration from 1s to 8760h, such as 30s", Default: "none",
		Help:  "how long an address that was released is not chosen, even if no other is left; one can still ask for it",
		parse: func(c *config, v string) (ok bool) { c.quarantine, ok = duration(v); return ok },
	},
	{
		Name: "sticky", Values: "a duration from 1s to 8760h, such as 24h", Default: "none",
		Help: "how long a released address is kept for the container that had it, known again by its name (engine 29 and newer) " +
			"or its MAC (setting REQUIRE_MAC); others get it only when no other is left",
		parse: func(c *config, v string) (ok bool) { c.sticky, ok = duration(v); return ok },
	},
}

// duration reads how long something rests.
func duration(v string) (time.Duration, bool) {
	d, err := time.ParseDuration(v)
	return d, err == nil && d >= time.Second && d <= 365*24*time.Hour
}

// userOptions picks those of a RequestPool's options that are the user's, by their names in the table. What the engine
// adds of its own accord passes: swarm leaves the address type of an earlier request in the map.
func userOptions(given map[string]string) (map[string]string, error) {
	var users map[string]string
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == optAddressType || strings.HasPrefix(key, netlabel.Prefix+".") {
			continue
		}
		i := slices.IndexFunc(options, func(o Option) bool { return strings.EqualFold(o.Name, key) })
		if i < 0 {
			return nil, refuse(ErrInvalid, "ipam option %.64q: unknown; known are %s", key, knownOptions())
		}
		if users == nil {
			users = map[string]string{}
		}
		users[options[i].Name] = given[key]
	}
	return users, nil
}

// parseOptions reads the options of a pool.
func parseOptions(users map[string]string) (config, error) {
	var c config
	for _, o := range options {
		v, given := users[o.Name]
		if given && !o.parse(&c, v) {
			return config{}, refuse(ErrInvalid, "ipam option %s: %.64q is not allowed; allowed: %s", o.Name, v, o.Values)
		}
	}
	return c, nil
}

// knownOptions lists the names of the options.
func knownOptions() string {
	var names []string
	for _, o := range options {
		names = append(names, o.Name)
	}
	return strings.Join(names, ", ")
}
