// Package cdi writes specs of the Container Device Interface: files that say to an engine which device nodes and variables a container gets
// that is given a device by name, as in
//
//	docker run --device mellanox.com/customer1=vf3 --network name=customer1,driver-opt=vf=3 ...
//
// The plugin is not asked when the engine gives device nodes, and cannot give them itself. A network has a spec if it has the option cdi. Its
// class is the value of that option, because the engine does not tell a driver how its user calls a network. Names of devices are static: the
// engine looks a device up before it asks for an endpoint (daemon/start.go of 29, containerStart), so that the user has to say twice which VF
// it is to be.
//
// The ledger says which networks there are, and sysfs which nodes. [Writer.Sync] makes the folder what these two say, whatever happened
// before, and removes what is left of networks that are gone. It touches only files that this package has written.
package cdi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/renameio/v2"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

const (
	// vendor is the first part of the names of all devices. It has no slash, and begins and ends with a letter.
	vendor = "mellanox.com"
	// version is that of the specification: the first one with annotations. Engines that have CDI know it (25 has 0.6).
	version = "0.6.0"
	// networkKey is the annotation that has the ID of a spec's network, and marks a file as written here.
	networkKey = "com.mellanox.passthrough/network"
	// prefix is how the names of the files begin.
	prefix = "passthrough-"
)

// unfinished matches the names of files that a crash has left (renameio, NewPendingFile). An engine reads files that end in .json or .yaml.
var unfinished = regexp.MustCompile(`^\.` + prefix + `.*\.json[0-9]+$`)

// A Folder is where the specs are, and where is read which nodes there are.
type Folder struct {
	Dir string // "" for none
	Sys fs.FS  // sysfs, which no path leads out of
	// Change makes a change of a file, at which a test may kill the process. nil just makes it.
	Change func(kind, what string, change func() error) error
}

// change makes a change of a file.
func (f Folder) change(kind, file string, change func() error) error {
	if f.Change == nil {
		return change()
	}
	return f.Change(kind, file, change)
}

// A Writer keeps the specs of a host's networks. The caller holds the lock of all networks.
type Writer struct {
	Folder
	Host  *hw.Host
	RDMA  *rdma.Host
	Store store.Store
	Pool  *vfpool.Pool
}

// fileName returns the name of the file of a class.
func fileName(class string) string { return prefix + class + ".json" }

// Step says what the option cdi of a network does to the host, "" for a network without it.
func Step(o *option.Network) string {
	if o.CDI == "" {
		return ""
	}
	return fmt.Sprintf("the CDI spec %s is written, and follows the network's devices: %s/%s=...", fileName(o.CDI), vendor, o.CDI)
}

// Check refuses the option cdi of a new network with an ID, if its spec could not be written.
func (w *Writer) Check(id string, o *option.Network, others []ledger.Network) error {
	if o.CDI == "" {
		return nil
	}
	if w.Dir == "" {
		return errors.New("option cdi: the plugin has no folder for CDI specs; give it one with docker plugin set passthrough cdi.source=/etc/cdi, " +
			"see docs/cdi.md")
	}
	for _, n := range others {
		have, err := option.ParseStored(n.Options)
		if err == nil && n.ID != id && strings.EqualFold(have.CDI, o.CDI) { // it is also part of variables, which are upper case
			return mode.Conflict(n.ID, "option cdi: %s is the name of network %s", o.CDI, ledger.ShortID(n.ID))
		}
	}
	name := filepath.Join(w.Dir, fileName(o.CDI))
	raw, err := os.ReadFile(name)
	switch _, ours := parse(raw); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("option cdi: %w", err)
	case !ours:
		return fmt.Errorf("option cdi: there is a file %s in the folder for CDI specs that the plugin has not written; remove it, or say another name",
			fileName(o.CDI))
	}
	return nil
}

// parse returns a spec that was written here; ok is false for other files.
func parse(raw []byte) (s specs.Spec, ok bool) {
	ok = json.Unmarshal(raw, &s) == nil && strings.HasPrefix(s.Kind, vendor+"/") && s.Annotations[networkKey] != ""
	return s, ok
}

// Sync writes the specs of all networks, as far as they are not what they should be, and removes those of networks that are gone. A network
// without devices has none: a spec must not be empty. What cannot be found out stays as it is, and is an error. VFs are bound before, to the
// driver that their files come from, and those that no network wants for programs any more are restored; more is true if that is to go on with
// another call.
func (w *Writer) Sync(ctx context.Context) (more bool, _ error) {
	networks, err := ledger.List[ledger.Network](ctx, w.Store, ledger.NetworkPrefix)
	if err != nil {
		return false, err
	}
	keep := map[string]bool{}
	var forPrograms []vfpool.VFRange
	var errs []error
	unread := false
	for _, n := range networks {
		o, err := option.ParseStored(n.Rec.Options)
		if err != nil {
			unread = true
			errs = append(errs, fmt.Errorf("cdi spec of network %s: %w", ledger.ShortID(n.Rec.ID), err))
			for key, value := range n.Rec.Options {
				if strings.EqualFold(key, "cdi") {
					keep[fileName(strings.TrimSpace(value))] = true
				}
			}
			continue
		}
		if o.CDI == "" {
			continue
		}
		if w.Dir == "" {
			return false, fmt.Errorf("network %s has the option cdi=%s, and the plugin has no folder for CDI specs any more, as after an upgrade; "+
				"set cdi.source again", ledger.ShortID(n.Rec.ID), o.CDI)
		}
		forPrograms = append(forPrograms, programs(n.Rec, o)...)
		unbound, bindErr := w.bind(ctx, n.Rec, o)
		more = more || unbound
		s, err := w.spec(n.Rec, o)
		if err == nil && len(s.Devices) > 0 {
			err = w.write(fileName(o.CDI), s)
		}
		keep[fileName(o.CDI)] = err != nil || len(s.Devices) > 0
		if err = errors.Join(bindErr, err); err != nil {
			errs = append(errs, fmt.Errorf("cdi spec of network %s: %w", ledger.ShortID(n.Rec.ID), err))
		}
	}
	if w.Dir != "" {
		errs = append(errs, w.removeOthers(keep))
	}
	if !unread { // a network that cannot be read may want VFs
		left, err := w.Pool.ForPrograms().Release(ctx, forPrograms)
		more, errs = more || left, append(errs, err)
	}
	return more, errors.Join(errs...)
}

// write writes a spec, unless it is there already. It replaces no file that was not written here.
func (w *Writer) write(name string, s specs.Spec) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	file := filepath.Join(w.Dir, name)
	before, err := os.ReadFile(file)
	switch _, ours := parse(before); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case bytes.Equal(before, text):
		return nil
	case !ours:
		return fmt.Errorf("%s is a file that the plugin has not written; it is left as it is", name)
	}
	// The temporary file must be in the same folder: it is a mount. Other programs than the engine may read what is no secret.
	var pending *renameio.PendingFile
	err = w.change("write-spec", file, func() (err error) {
		if pending, err = renameio.NewPendingFile(file, renameio.WithTempDir(w.Dir), renameio.WithStaticPermissions(0o644)); err == nil {
			_, err = pending.Write(text)
		}
		return err
	})
	if err == nil {
		err = w.change("rename-spec", file, pending.CloseAtomicallyReplace)
	}
	if pending != nil {
		err = errors.Join(err, pending.Cleanup()) // nothing to do if it was renamed
	}
	return err
}

// remove removes a file.
func (w *Writer) remove(file string) error {
	return w.change("remove-spec", file, func() error { return os.Remove(file) })
}

// removeOthers removes what was written here, but for some names.
func (w *Writer) removeOthers(keep map[string]bool) error {
	entries, err := os.ReadDir(w.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		file := filepath.Join(w.Dir, name)
		switch {
		case !e.Type().IsRegular() || keep[name]:
		case unfinished.MatchString(name):
			errs = append(errs, w.remove(file))
		case strings.HasPrefix(name, prefix) && strings.HasSuffix(name, ".json"):
			raw, err := os.ReadFile(file)
			if _, ours := parse(raw); err == nil && ours {
				err = w.remove(file)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
