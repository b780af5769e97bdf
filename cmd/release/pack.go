package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sumsFile has the SHA-256 of each other file of a release, as sha256sum prints it.
const sumsFile = "SHA256SUMS"

// pluginArchive returns the name of the archive with an architecture's plugin.
func (r release) pluginArchive(arch string) string {
	return "passthrough-plugin_" + r.number() + "_linux_" + arch + ".tar.gz"
}

// pack makes the files of the release from what was built: in built is a folder for each architecture (as GOARCH). What was in dist is
// replaced as a whole or not at all.
func (r release) pack(built string) error {
	archs, err := os.ReadDir(built)
	if err != nil {
		return err
	}
	done := r.dist
	r.dist += ".new"
	if err := os.RemoveAll(r.dist); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dist, 0o755); err != nil {
		return err
	}
	for _, arch := range archs {
		folder := filepath.Join(built, arch.Name())
		if err := r.packArch(arch.Name(), folder); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	if err := r.writeProvenance(); err != nil {
		return err
	}
	if err := writeSums(r.dist); err != nil {
		return err
	}
	if err := os.RemoveAll(done); err != nil {
		return err
	}
	return os.Rename(r.dist, done)
}

// packArch makes the files of one architecture, of those of the folders plugin, host and sbom that are there.
func (r release) packArch(arch, folder string) error {
	for _, part := range []struct {
		name string
		make func(folder string) error
	}{
		{"plugin", func(plugin string) error { return r.archive(plugin, r.pluginArchive(arch)) }},
		{"host", func(host string) error {
			return errors.Join(r.archive(host, "passthrough_"+r.number()+"_linux_"+arch+".tar.gz"), r.packages(arch, folder))
		}},
		{"sbom", func(sbom string) error { return r.boms(arch, sbom) }},
	} {
		path := filepath.Join(folder, part.name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := part.make(path); err != nil {
			return err
		}
	}
	return nil
}

// boms copies the bills of materials, of which there is one for each program.
func (r release) boms(arch, folder string) error {
	boms, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, bom := range boms {
		text, err := os.ReadFile(filepath.Join(folder, bom.Name()))
		if err != nil {
			return err
		}
		if text, err = withoutMaker(text); err != nil {
			return fmt.Errorf("%s: %w", bom.Name(), err)
		}
		name := bom.Name() + "_" + r.number() + "_linux_" + arch + ".cdx.json"
		if err := os.WriteFile(filepath.Join(r.dist, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withoutMaker returns a bill of materials in CycloneDX without the hashes of the program that made it, which is another one on another
// machine.
func withoutMaker(bom []byte) ([]byte, error) {
	all, metadata := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(bom, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["metadata"], &metadata); err != nil {
		return nil, err
	}
	delete(metadata, "tools")
	var err error
	if all["metadata"], err = json.Marshal(metadata); err != nil {
		return nil, err
	}
	return json.MarshalIndent(all, "", "  ")
}

// archive makes an archive of a folder, which unpacks to a folder with the archive's name.
func (r release) archive(folder, name string) error {
	file, err := os.Create(filepath.Join(r.dist, name))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := r.writeArchive(file, folder, strings.TrimSuffix(name, ".tar.gz")); err != nil {
		return err
	}
	return file.Close()
}

// writeArchive writes a folder as a tar file, compressed, below the folder top.
func (r release) writeArchive(w io.Writer, folder, top string) error {
	zip, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	out := tar.NewWriter(zip)
	if err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return r.add(out, path, filepath.ToSlash(filepath.Join(top, name)), e)
	}); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return zip.Close()
}

// add adds a file or a folder to a tar file. Its owner is root.
func (r release) add(out *tar.Writer, path, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %s: neither a file nor a folder", path, info.Mode())
	}
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	header = &tar.Header{Typeflag: header.Typeflag, Name: name, Mode: header.Mode, Size: header.Size, ModTime: r.time, Format: tar.FormatUSTAR}
	if info.IsDir() {
		header.Name += "/"
		return out.WriteHeader(header)
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(out, file)
	return err
}

// writeSums writes the sums of all files of a folder.
func writeSums(folder string) error {
	files, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, file := range files {
		sum, err := sumOf(filepath.Join(folder, file.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s  %s\n", sum, file.Name())
	}
	return os.WriteFile(filepath.Join(folder, sumsFile), []byte(lines.String()), 0o644)
}

// sumOf returns the SHA-256 of a file in hexadecimal.
func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
