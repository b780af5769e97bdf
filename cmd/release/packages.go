package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // the two kinds of packages register themselves
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packages makes a deb and an rpm. Nothing is enabled by installing them: most hosts have the managed plugin and need
// passthroughctl alone, and the rules would take the VFs that the host itself uses from its network software.
func (r release) packages(arch, folder string) error {
	for _, kind := range []string{"deb", "rpm"} {
		packager, err := nfpm.Get(kind)
		if err != nil {
			return err
		}
		info := nfpm.WithDefaults(r.packageInfo(arch, folder, kind)) // parses the version
		if err := nfpm.PrepareForPackager(info, kind); err != nil {
			return err
		}
		file, err := os.Create(filepath.Join(r.dist, packager.ConventionalFileName(info)))
		if err != nil {
			return err
		}
		if err := errors.Join(packager.Package(info, file), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// packageInfo says what is in a package.
func (r release) packageInfo(arch, folder, kind string) *nfpm.Info {
	info := &nfpm.Info{
		Name: "passthrough", Arch: arch, Platform: "linux", Version: r.version, MTime: r.time,
		Section: "net", Priority: "optional", License: "Apache-2.0", Homepage: "https://github.com/mellanox/passthrough",
		Maintainer: "The passthrough authors <https://github.com/mellanox/passthrough/issues>",
		Description: "Real network devices for containers\n" +
			"passthroughctl, which shows what the Docker plugin passthrough has given to which container, passthrough-cni, which gives devices to\n" +
			"containers of other engines, txipam, which gets their addresses of a server, and the plugin as a service that is not enabled. Most\n" +
			"hosts have the managed plugin (docker plugin install) and need passthroughctl alone.",
	}
	info.RPM.BuildHost = "localhost"
	info.RPM.Summary = "Real network devices for containers"
	info.Recommends = map[string][]string{"deb": {"docker.io | docker-ce"}}[kind]
	for _, f := range packageFiles(kind) {
		info.Contents = append(info.Contents, &files.Content{
			Source: filepath.Join(folder, f.from), Destination: f.to, FileInfo: &files.ContentFileInfo{Mode: f.mode, MTime: r.time},
		})
	}
	info.Contents = append(info.Contents, &files.Content{
		Source: filepath.Join(folder, "host/man/*.1"), Destination: "/usr/share/man/man1", FileInfo: &files.ContentFileInfo{Mode: 0o644, MTime: r.time},
	}, &files.Content{
		Source: cniFolder(kind) + "passthrough-cni", Destination: netavarkPlugin, Type: files.TypeSymlink, FileInfo: &files.ContentFileInfo{MTime: r.time},
	})
	return info
}

// packageFile is where a file is in a package. The unit in packaged/ has the paths of a package.
type packageFile struct {
	from, to string
	mode     os.FileMode
}

// netavarkPlugin is where netavark looks for the driver passthrough, in each distribution.
const netavarkPlugin = "/usr/libexec/netavark/passthrough"

// cniFolder is where the CNI plugins of the distributions are.
func cniFolder(kind string) string {
	return map[string]string{"deb": "/usr/lib/cni/", "rpm": "/usr/libexec/cni/"}[kind]
}

func packageFiles(kind string) []packageFile {
	const share = "/usr/share/"
	zsh := map[string]string{"deb": "zsh/vendor-completions/", "rpm": "zsh/site-functions/"}[kind]
	return []packageFile{
		{"host/passthroughctl", "/usr/bin/passthroughctl", 0o755},
		{"host/passthrough-driver", "/usr/sbin/passthrough-driver", 0o755},
		{"host/passthrough-cni", cniFolder(kind) + "passthrough-cni", 0o755},
		{"host/txipam", cniFolder(kind) + "txipam", 0o755},
		{"packaged/passthrough.service", "/usr/lib/systemd/system/passthrough.service", 0o644},
		{"host/host-rules/71-passthrough-vfs.rules", share + "passthrough/host-rules/71-passthrough-vfs.rules", 0o644},
		{"host/host-rules/05-passthrough-vfs.network", share + "passthrough/host-rules/05-passthrough-vfs.network", 0o644},
		{"host/completions/passthroughctl.bash", share + "bash-completion/completions/passthroughctl", 0o644},
		{"host/completions/passthroughctl.zsh", share + zsh + "_passthroughctl", 0o644},
		{"host/completions/passthroughctl.fish", share + "fish/vendor_completions.d/passthroughctl.fish", 0o644},
		{"host/README.md", share + "doc/passthrough/README.md", 0o644},
		{"host/CHANGELOG.md", share + "doc/passthrough/CHANGELOG.md", 0o644},
		{"host/LICENSE", share + "doc/passthrough/copyright", 0o644},
	}
}
