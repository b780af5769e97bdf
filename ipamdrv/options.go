package ipamdrv

import (
	"maps"
	"slices"
	"strings"

	"github.com/docker/libnetwork/netlabel"
)

// poolOption is one --ipam-opt that this driver knows.
type poolOption struct {
	name string
	// apply checks value and notes it in the pool's record.
	apply func(rec *poolRecord, value string) error
}

// poolOptions is the table of them. There is none yet; a new one is a row here.
var poolOptions = []poolOption{}

// applyOptions notes the options of a RequestPool in rec. What the engine adds of its own accord is not the user's and
// passes: swarm leaves the address type of an earlier request in the map.
func applyOptions(rec *poolRecord, options map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if name == optAddressType || strings.HasPrefix(name, netlabel.Prefix+".") {
			continue
		}
		i := slices.IndexFunc(poolOptions, func(o poolOption) bool { return strings.EqualFold(o.name, name) })
		if i < 0 {
			return refuse(ErrInvalid, "ipam option %.64q: unknown; %s", name, knownOptions())
		}
		if err := poolOptions[i].apply(rec, options[name]); err != nil {
			return err
		}
	}
	return nil
}

// knownOptions is what the error for an unknown option says about the known ones.
func knownOptions() string {
	if len(poolOptions) == 0 {
		return "this driver has no --ipam-opt"
	}
	var names []string
	for _, o := range poolOptions {
		names = append(names, o.name)
	}
	return "the --ipam-opt of this driver are " + strings.Join(names, ", ")
}
