package journal

import (
	"errors"
	"os"
)

// disk has the operations of the file system by which the file is replaced.
type disk interface {
	// Create creates a file, or empties it, for appending.
	Create(path string) (*os.File, error)
	Sync(*os.File) error
	Rename(from, to string) error
	SyncDir(path string) error // makes renames in the directory survive a power cut
}

// osDisk is the disk of the operating system.
type osDisk struct{}

// Create implements disk.
func (osDisk) Create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, fileMode)
}

// Sync implements disk.
func (osDisk) Sync(f *os.File) error { return f.Sync() }

// Rename implements disk.
func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir implements disk.
func (osDisk) SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
