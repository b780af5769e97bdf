package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	api "github.com/moby/moby/api/types/plugin"
)

// configType is the media type by which an engine knows a plugin (moby v2.0.0-beta.24, daemon/pkg/plugin/fetch_linux.go).
const configType types.MediaType = "application/vnd.docker.plugin.v1+json"

// plugin is a plugin as a registry has it: as "docker plugin push" sends it (moby v2.0.0-beta.24, daemon/pkg/plugin/backend_linux.go,
// CreateFromContext and buildManifest), with one layer.
type plugin struct {
	config, layer v1.Layer
	manifest      []byte
}

// RawManifest and MediaType are what remote.Put asks for.
func (p plugin) RawManifest() ([]byte, error)        { return p.manifest, nil }
func (p plugin) MediaType() (types.MediaType, error) { return types.DockerManifestSchema2, nil }

// digest returns the digest of the manifest, by which the plugin can be pulled.
func (p plugin) digest() v1.Hash { return hash(p.manifest) }

func hash(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// readPlugin reads the archive of a plugin. The plugin is the same for each time that the archive is read.
func readPlugin(archive string) (plugin, error) {
	file, err := os.Open(archive)
	if err != nil {
		return plugin{}, err
	}
	defer file.Close()
	config, layer, err := splitBundle(file)
	if err != nil {
		return plugin{}, fmt.Errorf("%s: %w", archive, err)
	}
	return newPlugin(config, layer)
}

// splitBundle returns the config.json of a bundle, and its rootfs as a compressed tar file.
func splitBundle(bundle io.Reader) (config, layer []byte, err error) {
	unzipped, err := gzip.NewReader(bundle)
	if err != nil {
		return nil, nil, err
	}
	var compressed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return nil, nil, err
	}
	in, out := tar.NewReader(unzipped), tar.NewWriter(zip)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		_, name, _ := strings.Cut(header.Name, "/") // all is below one folder
		switch inside, ok := strings.CutPrefix(name, "rootfs/"); {
		case name == "config.json":
			if config, err = io.ReadAll(in); err != nil {
				return nil, nil, err
			}
		case ok && inside != "":
			header.Name = inside
			if err := out.WriteHeader(header); err != nil {
				return nil, nil, err
			}
			if _, err := io.Copy(out, in); err != nil {
				return nil, nil, err
			}
		}
	}
	if config == nil {
		return nil, nil, errors.New("no config.json is in it")
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return nil, nil, err
	}
	return config, compressed.Bytes(), nil
}

// newPlugin returns the plugin that an engine makes of a bundle's config.json and root file system.
func newPlugin(raw, layer []byte) (plugin, error) {
	var config api.Config
	if err := json.Unmarshal(raw, &config); err != nil {
		return plugin{}, fmt.Errorf("config.json: %w", err)
	}
	// An engine has the digest of the compressed layer here, and not that of the tar file.
	config.Rootfs = &api.RootFS{Type: "layers", DiffIds: []string{hash(layer).String()}}
	encoded, err := json.Marshal(config)
	if err != nil {
		return plugin{}, err
	}
	encoded = append(encoded, '\n')
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.DockerManifestSchema2,
		Config:        v1.Descriptor{MediaType: configType, Size: int64(len(encoded)), Digest: hash(encoded)},
		Layers:        []v1.Descriptor{{MediaType: types.DockerLayer, Size: int64(len(layer)), Digest: hash(layer)}},
	})
	return plugin{static.NewLayer(encoded, configType), static.NewLayer(layer, types.DockerLayer), manifest}, err
}
