package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/internal/admin"
)

// checkSpecs checks whether the engine reads the CDI specs that the plugin writes, if it writes some or networks want some.
func (v *view) checkSpecs(ctx context.Context, engine *admin.Client, settings map[string]string) []finding {
	var users []string
	for _, n := range v.status.Networks {
		for option := range n.Options {
			if strings.EqualFold(option, "cdi") {
				users = append(users, v.network(n.ID))
			}
		}
	}
	folder := settings["CDI_DIR"]
	if folder != "" {
		folder = v.mountSource(ctx, engine, folder)
	}
	if folder == "" && len(users) == 0 {
		return nil
	}
	var info struct{ CDISpecDirs []string }
	if err := engine.Get(ctx, "/info", &info); err != nil {
		return nil // another check says so
	}
	return []finding{specFinding(folder, info.CDISpecDirs, users)}
}

// mountSource returns the host's path of the folder that a plugin has at a path. A managed plugin, which has a folder named after its ID for its
// socket, has another root directory.
func (v *view) mountSource(ctx context.Context, engine *admin.Client, folder string) string {
	var plugin struct {
		Config struct {
			Mounts []struct{ Destination, Source string }
		}
	}
	if engine.Get(ctx, "/plugins/"+path.Base(path.Dir(v.socket))+"/json", &plugin) == nil {
		for _, m := range plugin.Config.Mounts {
			if m.Destination == folder {
				return m.Source
			}
		}
	}
	return folder
}

// specFinding compares the folder of the plugin, "" for none, with those of the engine. users are the networks with specs.
func specFinding(folder string, dirs, users []string) finding {
	const subject, where = "cdi", "docs/cdi.md says how"
	real := func(dir string) string {
		if target, err := filepath.EvalSymlinks(dir); err == nil { // /var/run is /run
			return target
		}
		return path.Clean(dir)
	}
	reads := slices.ContainsFunc(dirs, func(dir string) bool { return real(dir) == real(folder) })
	switch {
	case folder == "":
		return finding{warning, subject, fmt.Sprintf("the plugin has no folder for the specs of network %s, as after an upgrade: they do not follow its devices",
			strings.Join(users, ", ")), "set cdi.source again; " + where}
	case len(dirs) == 0:
		return finding{warning, subject, fmt.Sprintf("specs are in %s, and the engine reads none", folder),
			`Docker 28.2 or newer, or 25 with {"features": {"cdi": true}} in daemon.json`}
	case !reads:
		return finding{warning, subject, fmt.Sprintf("specs are in %s, and the engine looks in %s", folder, strings.Join(dirs, ", ")),
			"set cdi.source to a folder of the engine's; " + where}
	}
	return finding{healthy, subject, fmt.Sprintf("specs are in %s, where the engine looks", folder), ""}
}
