//go:build engine

package engine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// The registry of docs/install.md. It is at no address of 127.0.0.0/8, where an engine checks no certificate.
const (
	releaseHost, releaseAddress = "registry.example.com", "192.0.2.5"
	releaseRepository           = releaseHost + "/mellanox/passthrough"
	// releaseLogin is operator with the password secret.
	releaseLogin = "operator:$2b$04$BWWa8aYqrZIhRDYZdmd5lOE3KVFXPb1zfyPIetehitLUKbaJ86NTu\n"
)

const (
	releaseTool  = "../../../.cache/test/release"
	installPage  = "../../../docs/install.md"
	debsRegistry = "../../../.cache/registry/usr/bin/docker-registry"
)

// TestRelease runs the commands of docs/install.md: two releases are pushed to a registry with a certificate and a login, the first is
// installed with another name and a setting, and upgraded to the second and back while a container has a device.
func TestRelease(t *testing.T) {
	ca := serveRegistry(t)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("SSL_CERT_FILE", ca)
	first, second := packRelease(t, "v0.1.0"), packRelease(t, "v0.2.0")
	if _, err := push(first, "v0.1.0"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("pushed without a login: %v", err)
	}
	install := docs.Commands(t, installPage, "From a registry")
	Sh(t, "echo secret | "+install[0]+" --password-stdin")
	for dist, version := range map[string]string{first: "v0.1.0", second: "v0.2.0"} {
		if out, err := push(dist, version); err != nil || !strings.Contains(out, releaseRepository+":"+version+"-amd64@sha256:") {
			t.Fatalf("%v\n%s", err, out)
		}
	}

	withoutPlugin(t)
	t.Cleanup(func() { _, _ = Try("sh", "-c", "docker plugin rm -f "+Plugin+"; rm -r /var/lib/passthrough-plugin") })
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, strings.Join(install[1:], " && "))
	wantRelease(t, "v0.1.0", "LOG_LEVEL=info")
	Sh(t, "docker plugin disable "+Plugin+" && docker plugin set "+Plugin+" LOG_LEVEL=debug && docker plugin enable "+Plugin)
	passthrough(t, "n1", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1")
	Container(t, "c1", "--net", "n1")
	address := Address(t, "c1", "n1")

	upgrade := docs.Commands(t, installPage, "An upgrade")
	for _, version := range []string{"v0.2.0", "v0.1.0"} {
		if _, err := Try("docker", "plugin", "disable", Plugin); err == nil {
			t.Error("disabled without --force in spite of a network: the page says otherwise")
		}
		for _, line := range upgrade {
			Sh(t, strings.ReplaceAll(line, ":v0.2.0", ":"+version))
			if source := stateSource(t); strings.HasPrefix(line, "docker plugin upgrade ") && source != "/proc/irq" {
				t.Errorf("after docker plugin upgrade state.source is %s: the page says that the engine sets it back", source)
			}
		}
		wantRelease(t, version, "LOG_LEVEL=debug")
		if now := Address(t, "c1", "n1"); now != address {
			t.Errorf("%s: the address was %s, and is %s", version, address, now)
		}
		Reaches(t, "c1", "10.20.0.1", 5*time.Second)
		Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "n1", "lab", "true")
	}
	Docker(t, "stop", "-t1", "c1")
	Docker(t, "start", "c1")
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
	passthrough(t, "n2", "pt1", "10.30.0.0/24")
}

// stateSource is the folder of the host that the plugin has for its records.
func stateSource(t *testing.T) string {
	t.Helper()
	return Docker(t, "plugin", "inspect", "-f", `{{range .Config.Mounts}}{{if eq .Name "state"}}{{.Source}}{{end}}{{end}}`, Plugin)
}

// TestReleaseNames: a release has its reference as its name if it gets no other, and the tag may be that of the architecture.
func TestReleaseNames(t *testing.T) {
	ca := serveRegistry(t)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("SSL_CERT_FILE", ca)
	Sh(t, "echo secret | docker login -u operator --password-stdin "+releaseHost)
	if _, err := push(packRelease(t, "v0.1.0"), "v0.1.0"); err != nil {
		t.Fatal(err)
	}
	veth(t, "pt0", "10.20.0.1/24")
	for _, name := range []string{releaseRepository + ":v0.1.0-amd64", releaseRepository + ":latest"} {
		Docker(t, "plugin", "install", "--grant-all-permissions", strings.TrimSuffix(name, ":latest"))
		Network(t, "n1", "-d", name, "--ipam-driver", name, "--subnet", "10.20.0.0/24", "-o", "netdevice=pt0", "-o", "mode=passthrough")
		Docker(t, "run", "--rm", "--net", "n1", "lab", "ping", "-c1", "-w5", "10.20.0.1")
		Docker(t, "network", "rm", "n1")
		Docker(t, "plugin", "disable", name)
		Docker(t, "plugin", "rm", name)
	}
}

// TestReleaseArchive runs the commands of docs/install.md for a machine without a registry.
func TestReleaseArchive(t *testing.T) {
	withoutPlugin(t)
	t.Cleanup(func() { _, _ = Try("docker", "plugin", "rm", "-f", Plugin) })
	dist := packRelease(t, "v0.1.0")
	for _, line := range docs.Commands(t, installPage, "From an archive") {
		InFolder(t, dist, line)
	}
	wantRelease(t, "v0.1.0", "LOG_LEVEL=info")
}

// wantRelease checks that the plugin is enabled, in this version and with this setting.
func wantRelease(t *testing.T, version, setting string) {
	t.Helper()
	got := Docker(t, "plugin", "inspect", "-f", "{{.Enabled}} {{.Config.Description}} {{.Settings.Env}}", Plugin)
	if !strings.HasPrefix(got, "true (release "+version+") ") || !strings.Contains(got, setting) {
		t.Errorf("the plugin is %s, want release %s with %s", got, version, setting)
	}
}

// packRelease makes a release for amd64 of the plugin that the other tests use, and returns where. Its description and its root file
// system differ from those of others: an engine has none of one content under two names.
func packRelease(t *testing.T, version string) (dist string) {
	t.Helper()
	built, dist := t.TempDir(), filepath.Join(t.TempDir(), "dist")
	Sh(t, "mkdir "+built+"/amd64 && cp -a "+bundle+" "+built+"/amd64/plugin")
	Run(t, "sed", "-i", `s|"description": "Real.*"|"description": "(release `+version+`)"|`, built+"/amd64/plugin/config.json")
	Sh(t, "echo "+version+" >"+built+"/amd64/plugin/rootfs/version")
	Run(t, releaseTool, "pack", "--version", version, "--dist", dist, built)
	return dist
}

// push pushes a release.
func push(dist, version string) (string, error) {
	return Try(releaseTool, "push", "--version", version, "--dist", dist, releaseRepository)
}

// serveRegistry serves Debian's registry until the test ends, with a login, and a certificate of a CA that the engine trusts. It returns
// the file with the CA's certificate.
func serveRegistry(t *testing.T) (ca string) {
	t.Helper()
	dir, trusted := t.TempDir(), "/etc/docker/certs.d/"+releaseHost
	Sh(t, "ip address add "+releaseAddress+"/32 dev lo && echo "+releaseAddress+" "+releaseHost+" >>/etc/hosts && mkdir -p "+trusted)
	t.Cleanup(func() {
		Sh(t, "ip address del "+releaseAddress+"/32 dev lo; sed '/"+releaseHost+"/d' /etc/hosts >/tmp/hosts && cat /tmp/hosts >/etc/hosts; rm -r "+trusted)
	})
	makeCertificates(t, dir)
	writeFile(t, dir+"/htpasswd", releaseLogin)
	writeFile(t, dir+"/config.yml", `version: 0.1
storage: {filesystem: {rootdirectory: `+dir+`/data}}
http: {addr: "`+releaseAddress+`:443", tls: {certificate: `+dir+`/cert.pem, key: `+dir+`/key.pem}}
auth: {htpasswd: {realm: test, path: `+dir+`/htpasswd}}
`)
	Sh(t, "cp "+dir+"/ca.pem "+trusted+"/ca.crt")
	var log strings.Builder
	registry := exec.Command(debsRegistry, "serve", dir+"/config.yml")
	registry.Stdout, registry.Stderr = &log, &log
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = registry.Process.Kill()
		_ = registry.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	Within(t, time.Minute, func() string {
		answer, err := http.Get("http://" + releaseAddress + ":443/") // which answers that it wants HTTPS
		if err != nil {
			return err.Error()
		}
		answer.Body.Close()
		return ""
	})
	return dir + "/ca.pem"
}

// makeCertificates makes a CA and a certificate of it for the registry: ca.pem, cert.pem and key.pem.
func makeCertificates(t *testing.T, dir string) {
	t.Helper()
	caKey, key := newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	host := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: ca.NotAfter, DNSNames: []string{releaseHost}}
	for name, c := range map[string]struct {
		certificate *x509.Certificate
		key         *ecdsa.PrivateKey
	}{"ca.pem": {ca, caKey}, "cert.pem": {host, key}} {
		der, err := x509.CreateCertificate(rand.Reader, c.certificate, ca, &c.key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, filepath.Join(dir, name), "CERTIFICATE", der)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, dir+"/key.pem", "EC PRIVATE KEY", der)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
