package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write writes files, by their names in a folder.
func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// read returns the text of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// packed makes a release with plugins that are nothing but a config.json and one file with a text.
func packed(t *testing.T, version, text string) release {
	t.Helper()
	built := t.TempDir()
	for _, arch := range []string{"amd64", "arm64"} {
		write(t, filepath.Join(built, arch), map[string]string{
			"plugin/config.json": `{"description": "a plugin", "entrypoint": ["/driver"]}`, "plugin/rootfs/driver": arch + text,
		})
		if err := os.MkdirAll(filepath.Join(built, arch, "plugin/rootfs/tmp"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(built, arch, "plugin/rootfs/tmp"), 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
	}
	r := release{version: version, dist: filepath.Join(t.TempDir(), "dist"), time: time.Unix(1e9, 0)}
	if err := r.pack(built); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVersions: what is not a version, or cannot be a tag, is refused.
func TestVersions(t *testing.T) {
	for _, version := range []string{"v0.1.0", "v10.20.30", "v0.1.0-rc1", "v0.1.0-rc.1", "v1.0.0-3-g0123abc"} {
		if err := checkVersion(version); err != nil {
			t.Error(err)
		}
	}
	for _, version := range []string{"", "0.1.0", "v0.1", "v01.0.0", "v0.1.0+dirty", "v0.1.0-", "latest", "v0.1.0/x", "v0.1.0-" + strings.Repeat("a", 80)} {
		if err := checkVersion(version); err == nil {
			t.Errorf("%q is accepted", version)
		}
	}
}

// TestArchive: an archive unpacks to one folder, with the modes of its files and with the one time of the release.
func TestArchive(t *testing.T) {
	r := packed(t, "v0.1.0", "")
	out, err := exec.Command("tar", "--utc", "-tvzf", filepath.Join(r.dist, r.pluginArchive("amd64"))).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	const top, at = "passthrough-plugin_0.1.0_linux_amd64/", " 2001-09-09 01:46 "
	want := []string{
		"drwxr-xr-x 0/0 0" + at + top, "-rw-r--r-- 0/0 54" + at + top + "config.json", "drwxr-xr-x 0/0 0" + at + top + "rootfs/",
		"-rw-r--r-- 0/0 5" + at + top + "rootfs/driver", "drwxrwxrwt 0/0 0" + at + top + "rootfs/tmp/",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the archive has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestReleaseTwice: a release that is made in another folder is the same, byte for byte. It has all architectures. The second is pushed and
// signed, with a stand-in for cosign.
func TestReleaseTwice(t *testing.T) {
	copied := t.TempDir()
	copyTree(t, "../..", copied)
	first := build(t, "../..", "amd64 arm64 ppc64le")
	bin, host := t.TempDir(), serve(t)
	write(t, bin, map[string]string{"cosign": "#!/bin/sh\necho \"$@\" >>" + bin + "/signed\n"})
	if err := os.Chmod(bin+"/cosign", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("COSIGN_KEY", "k.pem")
	second := build(t, copied, "arm64", host)
	_, _, manifest := get(t, host, "manifests/v0.1.0-rc1-arm64")
	want := "sign-blob --yes --key k.pem --bundle " + second + "/SHA256SUMS.sigstore.json " + second + "/SHA256SUMS\n" +
		"sign --yes --key k.pem " + host + "/mellanox/passthrough@" + hash(manifest).String() + "\n"
	if signed := read(t, bin+"/signed"); signed != want {
		t.Errorf("cosign was run with\n%s\nwant\n%s", signed, want)
	}
	lines := strings.Split(strings.TrimSpace(read(t, filepath.Join(first, sumsFile))), "\n")
	for _, line := range strings.Split(strings.TrimSpace(read(t, filepath.Join(second, sumsFile))), "\n") {
		// The provenance of one architecture has no other.
		if !slices.Contains(lines, line) && !strings.HasSuffix(line, provenanceFile) {
			t.Errorf("made again it has\n%s\nand had\n%s", line, strings.Join(lines, "\n"))
		}
	}
	var files []string
	for _, line := range lines {
		_, file, _ := strings.Cut(line, "  ")
		files = append(files, file)
	}
	if want := filesOf("0.1.0-rc1", "0.1.0~rc1"); !slices.Equal(files, want) {
		t.Errorf("a release has\n%s\nwant\n%s", strings.Join(files, "\n"), strings.Join(want, "\n"))
	}
	if text := read(t, filepath.Join(first, provenanceFile)); !strings.Contains(text, `"gitCommit": "0123456789ab"`) ||
		strings.Count(text, `"sha256"`) != len(files)-1 { // all but itself
		t.Errorf("the provenance is %s", text)
	}
	checkPackages(t, first)
	for _, program := range []string{"passthrough-driver", "passthroughctl", "passthrough-cni", "txipam"} {
		bom := read(t, filepath.Join(first, program+"_0.1.0-rc1_linux_ppc64le.cdx.json"))
		if !strings.Contains(bom, `"bomFormat": "CycloneDX"`) || !strings.Contains(bom, `"pkg:golang/github.com/spf13/cobra@`) == (program == "passthroughctl") {
			t.Errorf("the bill of materials of %s is %.2000s", program, bom)
		}
	}
}

// filesOf returns the files of a release, by its version and that of its packages.
func filesOf(version, packaged string) (files []string) {
	for _, a := range [][3]string{{"amd64", "amd64", "x86_64"}, {"arm64", "arm64", "aarch64"}, {"ppc64le", "ppc64el", "ppc64le"}} {
		files = append(files,
			"passthrough-"+packaged+"-1."+a[2]+".rpm", "passthrough-cni_"+version+"_linux_"+a[0]+".cdx.json", "passthrough-driver_"+version+"_linux_"+a[0]+".cdx.json",
			"passthrough-plugin_"+version+"_linux_"+a[0]+".tar.gz", "passthrough_"+packaged+"_"+a[1]+".deb",
			"passthrough_"+version+"_linux_"+a[0]+".tar.gz", "passthroughctl_"+version+"_linux_"+a[0]+".cdx.json", "txipam_"+version+"_linux_"+a[0]+".cdx.json")
	}
	files = append(files, provenanceFile)
	slices.Sort(files)
	return files
}

// checkPackages checks the packages of a release: what they have where, and that the program in them runs.
func checkPackages(t *testing.T, dist string) {
	t.Helper()
	root := t.TempDir()
	run(t, "dpkg-deb", "-x", filepath.Join(dist, "passthrough_0.1.0~rc1_amd64.deb"), root)
	const build = " v0.1.0-rc1, commit 0123456789ab of 2023-11-14T22:13:20Z\n"
	for program, want := range map[string]string{"/usr/bin/passthroughctl": "passthroughctl version" + build, "/usr/sbin/passthrough-driver": "driver" + build,
		"/usr/lib/cni/txipam":          "txipam v0.1.0-rc1\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
		"/usr/lib/cni/passthrough-cni": "passthrough-cni v0.1.0-rc1\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"} {
		if out := run(t, root+program, "--version"); out != want {
			t.Errorf("%s of the package says %s, want %s", program, out, want)
		}
	}
	unit := read(t, root+"/usr/lib/systemd/system/passthrough.service")
	if !strings.HasPrefix(unit, "[Unit]\n") || !strings.Contains(unit, "\nExecStart=/usr/sbin/passthrough-driver\n") {
		t.Errorf("the unit of the package is %s", unit)
	}
	if fields := run(t, "dpkg-deb", "-f", dist+"/passthrough_0.1.0~rc1_ppc64el.deb", "Version", "Architecture"); fields !=
		"Version: 0.1.0~rc1\nArchitecture: ppc64el\n" {
		t.Errorf("the deb says %s", fields)
	}
	if fields := run(t, "rpm", "-qp", "--qf", "%{name} %{version} %{release} %{arch} %{buildhost}", dist+"/passthrough-0.1.0~rc1-1.ppc64le.rpm"); fields !=
		"passthrough 0.1.0~rc1 1 ppc64le localhost" {
		t.Errorf("the rpm says %s", fields)
	}
	for kind, list := range map[string]string{
		"deb": run(t, "dpkg-deb", "-c", dist+"/passthrough_0.1.0~rc1_arm64.deb"), "rpm": run(t, "rpm", "-qlvp", dist+"/passthrough-0.1.0~rc1-1.aarch64.rpm"),
	} {
		for _, f := range packageFiles(kind) {
			if !strings.Contains(list, f.to+"\n") {
				t.Errorf("the %s has no %s:\n%s", kind, f.to, list)
			}
		}
		if link := netavarkPlugin + " -> " + cniFolder(kind) + "passthrough-cni\n"; !strings.Contains(list, link) {
			t.Errorf("the %s has no link %s:\n%s", kind, link, list)
		}
		if !strings.Contains(list, "/usr/share/man/man1/passthroughctl-status.1\n") {
			t.Errorf("the %s has no manual pages:\n%s", kind, list)
		}
	}
}

// run runs a program and returns what it wrote.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// build makes a release of a tree, and returns where.
func build(t *testing.T, tree, archs string, registry ...string) (dist string) {
	t.Helper()
	dist = filepath.Join(t.TempDir(), "dist")
	cmd := exec.Command("scripts/release", append([]string{"v0.1.0-rc1", dist}, registry...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "ARCHS="+archs, "SOURCE_DATE_EPOCH=1700000000", "COMMIT=0123456789ab")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dist
}

// copyTree copies the files of a repository, those that are not committed, too.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -pt "$1"`, "sh", to)
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
