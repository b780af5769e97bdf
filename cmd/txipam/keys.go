package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/remote"
)

// defaultDir is where the keys are, beside those of host-local.
const defaultDir = "/var/lib/cni/txipam"

// temporary is how the names of files begin that are being written.
const temporary = "new."

// keys are the keys under which the containers of a network have addresses, in a folder: one file for each attachment, CONTAINER:IFNAME, with the
// key. A key is on the disk before the server sees it. Those that are to be released, because the server did not answer when their container ended,
// are the names of files in the folder released. Commands need no lock: each attachment has a file of its own, and what two commands release
// is released.
type keys string

// newKeys returns the keys of a network, whose folder is made.
func newKeys(dir, network string) (keys, error) {
	if dir == "" {
		dir = defaultDir
	}
	k := keys(filepath.Join(dir, network))
	return k, os.MkdirAll(k.released(), 0o700)
}

// file is that of an attachment. The name of an interface has no colon (CNI spec, "Section 2").
func (k keys) file(container, ifname string) string {
	return filepath.Join(string(k), container+":"+ifname)
}

// released is the folder of the keys that are to be released.
func (k keys) released() string { return filepath.Join(string(k), "released") }

// get returns the key of an attachment, and makes one if it has none: an ADD that is repeated asks for the same addresses again.
func (k keys) get(container, ifname string) (string, error) {
	name := k.file(container, ifname)
	key, err := os.ReadFile(name)
	if err == nil && len(key) > 0 {
		return string(key), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	now := rand.Text()
	f, err := os.CreateTemp(k.released(), temporary)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(now)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return now, sync(string(k))
}

// known returns the key of an attachment, "" for none.
func (k keys) known(container, ifname string) (string, error) {
	key, err := os.ReadFile(k.file(container, ifname))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(key), err
}

// drop makes the key of an attachment one that is to be released. Without a key it does nothing.
func (k keys) drop(container, ifname string) error {
	key, err := k.known(container, ifname)
	if err != nil || key == "" {
		return err
	}
	if err := os.Rename(k.file(container, ifname), filepath.Join(k.released(), filepath.Base(key))); err != nil {
		return err
	}
	return errors.Join(sync(k.released()), sync(string(k)))
}

// attachments lists those that have a key, as CONTAINER:IFNAME.
func (k keys) attachments() ([]string, error) {
	entries, err := os.ReadDir(string(k))
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.Contains(e.Name(), ":") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// release releases at the server what is to be released. It ends with the first failure.
func (k keys) release(ctx context.Context, c *remote.Client) error {
	entries, err := os.ReadDir(k.released())
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			continue
		}
		if err == nil {
			err = c.Release(ctx, e.Name())
		}
		if err == nil {
			err = os.Remove(filepath.Join(k.released(), e.Name()))
		}
		if errors.Is(err, fs.ErrNotExist) { // another command has released it, too
			err = nil
		}
	}
	return err
}

// without drops the keys of the attachments that are not valid.
func (k keys) without(valid []string) error {
	all, err := k.attachments()
	for _, name := range all {
		if container, ifname, _ := strings.Cut(name, ":"); err == nil && !slices.Contains(valid, name) {
			err = k.drop(container, ifname)
		}
	}
	return err
}

// sync makes the entries of a folder durable.
func sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
