//go:build lab

package campaign

import (
	"errors"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// stateOps are the operations on the plugin's state directory.
var stateOps = []operation{
	{name: "disk full", weight: 2, may: room, bound: afterKill, do: func(c *campaign) error {
		c.leaks++ // an address whose release could not be written
		fill := `dd if=/dev/zero of="$at/fill" bs=4096 2>/dev/null || sync`
		if c.rand.IntN(2) == 0 {
			c.describe("and the plugin killed")
			fill += "; " + killPlugin + "; " + answers
		}
		return c.onSmallDisk("loop", fill, `rm -f "$at/fill"`)
	}},
	{name: "disk read-only", weight: 2, may: room, bound: afterKill, do: func(c *campaign) error {
		return c.onSmallDisk("loop,ro", "", "")
	}},
	{name: "state corrupt", weight: 2, may: room, do: func(c *campaign) error {
		const off, on = "docker plugin disable -f " + Plugin, "docker plugin enable " + Plugin
		damage := random(c.rand, []string{"dd if=/dev/urandom of=$f bs=4096 count=2 conv=notrunc", "truncate -s 10000 $f"})
		c.describe("(%s)", damage)
		err := command(`set -e; f=` + state + `/ledger.db; ` + off + `; cp -a $f /disk/ledger.good
` + damage + ` 2>/dev/null; sha256sum <$f >/disk/bad.sum; ` + on)
		if err != nil {
			return err
		}
		k, args := c.newContainer()
		c.describe("(refused)")
		return errors.Join(refused("put a good copy at /data/ledger.db", args...), c.note(k, false),
			command(`set -e; f=`+state+`/ledger.db; sha256sum -c --quiet /disk/bad.sum <$f.damaged-*; `+off+`
rm $f.damaged-*; cp -a /disk/ledger.good $f; `+on))
	}},
}

// onSmallDisk moves the plugin's state to a small disk mounted with options, runs the command breaks, starts a container, runs the
// command mends and moves the state back.
func (c *campaign) onSmallDisk(options, breaks, mends string) error {
	const off, on = "docker plugin disable -f " + Plugin, "docker plugin enable " + Plugin
	err := command(`set -e; mkdir -p /disk/at; at=` + state + `; ` + off + `
mount -o loop /disk/small /disk/at; rm -rf /disk/at/*; cp -a "$at/." /disk/at/; umount /disk/at
mount -o ` + options + ` /disk/small "$at"; ` + on + `; ` + breaks)
	if err != nil {
		return err
	}
	k, args := c.newContainer()
	_, err = docker(args...)
	noted := c.note(k, err == nil)
	switch {
	case err != nil:
		c.describe("(refused)")
	case options != "loop":
		return errors.New("a container was started with the ledger on a disk that cannot be written to")
	}
	return errors.Join(noted, command(`set -e; at=`+state+`; `+mends+`
`+off+`; umount "$at" 2>/dev/null || true; mount -o loop /disk/small /disk/at; cp -a /disk/at/. "$at/"; umount /disk/at; rmdir "$at/lost+found" || true; `+on))
}
