package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The managed plugin's own folder is deleted with it (docker plugin rm). So it can have a folder of the host for its records, which the next
// installation finds: the mount "state" of plugin/config.json. An engine starts no plugin with a mount whose source does not exist, and creates
// none, so the source is one that exists everywhere and that the plugin has anyway, /proc/irq, until an administrator sets it.
//
// The records are in one place at a time. The folder has an identity, and the plugin's own folder a copy of it once the records are there:
// an upgrade of the plugin sets the source of the mount back (docker 20.10 to 29, plugin/backend_linux.go), and a plugin that then went on
// with an empty ledger would give out again what its containers have.

const (
	ownFolder  = "/data"       // the managed plugin's own, propagatedMount in plugin/config.json
	hostFolder = "/host/state" // where it has the one of the host
	cdiFolder  = "/host/cdi"   // where it has the one for CDI specs; its mount is done as that of hostFolder

	folderID     = "folder-id"     // in the folder of the host: its identity
	recordsMoved = "records-moved" // in the plugin's own folder: the identity of the folder that has its records
)

// stateFolders are the two folders in which a managed plugin can have its records.
type stateFolders struct {
	own    string
	host   string // "" if the plugin has none
	points crashPoints
}

// foldersOf returns the folders of a plugin with a state directory, the zero value if that is not one of a managed plugin's.
func foldersOf(stateDir string) stateFolders {
	switch stateDir {
	case hostFolder:
		return stateFolders{ownFolder, hostFolder, newCrashPoints()}
	case ownFolder:
		return stateFolders{own: ownFolder, points: newCrashPoints()}
	}
	return stateFolders{}
}

// foldersIn returns a variable of the environment. STATE_DIR and CDI_DIR are the folders of the host unless they are set, if the plugin has
// them.
func foldersIn(getenv func(name string) string) func(name string) string {
	of := map[string]string{"STATE_DIR": hostFolder, "CDI_DIR": cdiFolder}
	return func(name string) string {
		value := getenv(name)
		if folder := of[name]; folder != "" && value == "" && mounted(folder) {
			value = folder
		}
		return value
	}
}

// mounted returns true if a folder of the host is mounted at path, and not what stands for none.
func mounted(path string) bool {
	var at unix.Statfs_t
	return unix.Statfs(path, &at) == nil && at.Type != unix.PROC_SUPER_MAGIC
}

// settle makes sure that the records are in the folder of the host if there is one, and in the plugin's own otherwise. found is true if those of
// an earlier installation were found. After an error, which says what an administrator has to do, none of the folders must be used.
func (f stateFolders) settle() (found bool, err error) {
	moved, err := readID(filepath.Join(f.own, recordsMoved))
	switch {
	case err != nil || f.own == "":
		return false, err
	case f.host == "" && moved != "":
		return false, errors.New("state.source: the records are in a folder of the host, which the plugin does not have any more, as " +
			"after an upgrade; set it to that folder again")
	case f.host == "":
		return false, nil
	}
	if err := closeFolder(f.host); err != nil {
		return false, err
	}
	id, err := readID(filepath.Join(f.host, folderID))
	switch {
	case err != nil:
		return false, err
	case moved != "" && id != moved:
		return false, errors.New("state.source: the records are in another folder of the host; set it to that one, or copy all files from " +
			"there to the new one")
	case moved != "":
		return false, f.removeOwn() // it was killed before it did that
	}
	if found, err = f.move(); err != nil {
		return false, err
	}
	if id == "" {
		id = strings.ToLower(rand.Text())
		if err := f.writeFile(filepath.Join(f.host, folderID), []byte(id+"\n"), 0o600); err != nil {
			return false, err
		}
	}
	return found, f.note(id)
}

// note writes down in the plugin's own folder that the records are in the folder with an identity, and removes the ledger there.
func (f stateFolders) note(id string) error {
	if err := os.MkdirAll(f.own, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(f.own, 0o700); err != nil { // an engine makes it readable for all
		return err
	}
	if err := f.writeFile(filepath.Join(f.own, recordsMoved), []byte(id+"\n"), 0o600); err != nil {
		return err
	}
	return f.removeOwn()
}

// removeOwn removes the ledger from the plugin's own folder, if it is there.
func (f stateFolders) removeOwn() error {
	path := filepath.Join(f.own, ledgerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return f.points.Change("remove-file", path, func() error { return os.Remove(path) })
}

// readID reads an identity, "" for none.
func readID(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && len(bytes.TrimSpace(raw)) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return string(bytes.TrimSpace(raw)), err
}

// closeFolder makes a folder that has no files accessible for root alone. It is an error if others could change what is in the folder: what
// the records say is done with devices.
func closeFolder(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("state.source: %w", err)
	}
	var at unix.Stat_t
	if err := unix.Stat(dir, &at); err != nil {
		return fmt.Errorf("state.source: %w", err)
	}
	switch {
	case int(at.Uid) != os.Geteuid() || len(files) > 0 && at.Mode&0o022 != 0:
		return errors.New("state.source: the folder must belong to root, and be writable for root alone: chown root and chmod 700")
	case len(files) == 0:
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// move copies what is in the plugin's own folder to the host's, the ledger last, if the plugin has records. found is true if it has none and the
// host's folder does.
func (f stateFolders) move() (found bool, err error) {
	own, errOwn := os.ReadFile(filepath.Join(f.own, ledgerFile))
	host, errHost := os.ReadFile(filepath.Join(f.host, ledgerFile))
	switch {
	case errors.Is(errOwn, fs.ErrNotExist):
		if errHost != nil && !errors.Is(errHost, fs.ErrNotExist) {
			return false, errHost
		}
		return errHost == nil, nil
	case errOwn != nil:
		return false, errOwn
	case errHost == nil && bytes.Equal(own, host): // it was moved, and the process ended before it had noted that
		return false, nil
	case errHost == nil:
		return false, errors.New("state.source: both the plugin and the folder have records, of two installations: to go on with the plugin's, move all " +
			"files out of the folder; to go on with the folder's, remove the plugin (docker plugin rm) and install it again")
	case !errors.Is(errHost, fs.ErrNotExist):
		return false, errHost
	}
	err = filepath.WalkDir(f.own, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.own, path) // it is below
		switch {
		case err != nil || rel == "." || rel == ledgerFile:
			return err
		case d.IsDir():
			dir := filepath.Join(f.host, rel)
			return f.points.Change("make-folder", dir, func() error { return os.MkdirAll(dir, 0o700) })
		case !d.Type().IsRegular():
			return nil
		}
		return f.copyFile(path, filepath.Join(f.host, rel))
	})
	if err != nil {
		return false, fmt.Errorf("state.source: copy the records: %w", err)
	}
	return false, f.writeFile(filepath.Join(f.host, ledgerFile), own, 0o600)
}

// copyFile copies a file durably, with its mode.
func (f stateFolders) copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return f.writeFile(to, raw, info.Mode().Perm())
}

// writeFile writes a file durably: after a crash there is the old one or the new one.
func (f stateFolders) writeFile(path string, content []byte, mode fs.FileMode) error {
	err := f.points.Change("write-file", path+".new", func() error {
		file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = file.Write(content)
		return errors.Join(err, file.Sync(), file.Close())
	})
	if err != nil {
		return err
	}
	return f.points.Change("rename-file", path, func() error { return renameFile(path+".new", path) })
}

// renameFile renames a file durably.
func renameFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
