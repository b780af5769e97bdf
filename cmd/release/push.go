package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// defaultArch is the architecture of tags without one. An engine does not look for a plugin in a list of manifests, so the tag says it.
const defaultArch = "amd64"

// push pushes the plugins in dist to a repository, under the tags VERSION-ARCH, VERSION and, for a final version, latest. A version that
// is there with another content is an error: a released version does not change.
func (r release) push(ctx context.Context, repository string) error {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	archs, err := r.archsIn()
	if err != nil {
		return err
	}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("passthrough-release"),
		remote.WithTransport(pluginScope{remote.DefaultTransport}),
	}
	for _, arch := range archs {
		p, err := readPlugin(filepath.Join(r.dist, r.pluginArchive(arch)))
		if err != nil {
			return err
		}
		if err := p.push(repo, r.tags(arch), r.version, options); err != nil {
			return err
		}
	}
	return nil
}

// archsIn returns the architectures that the release has, after a check that its files are those that were packed.
func (r release) archsIn() ([]string, error) {
	sums, err := os.Open(filepath.Join(r.dist, sumsFile))
	if err != nil {
		return nil, err
	}
	defer sums.Close()
	before, after, _ := strings.Cut(r.pluginArchive("ARCH"), "ARCH")
	var archs []string
	for lines := bufio.NewScanner(sums); lines.Scan(); {
		want, file, _ := strings.Cut(lines.Text(), "  ")
		got, err := sumOf(filepath.Join(r.dist, file))
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("%s: its SHA-256 is %s, but that in %s is %s; make the release again", file, got, sumsFile, want)
		}
		if arch, ok := strings.CutPrefix(file, before); ok {
			archs = append(archs, strings.TrimSuffix(arch, after))
		}
	}
	if len(archs) == 0 {
		return nil, fmt.Errorf("%s: it has no plugin of %s", r.dist, r.version)
	}
	return archs, nil
}

// tags returns the tags of an architecture's plugin; those that move from release to release are the last.
func (r release) tags(arch string) []string {
	tags := []string{r.version + "-" + arch}
	if arch == defaultArch {
		tags = append(tags, r.version)
	}
	if r.final() {
		tags = append(tags, "latest-"+arch)
		if arch == defaultArch {
			tags = append(tags, "latest")
		}
	}
	return tags
}

// push pushes one plugin under some tags. No tag that has the version may be there with other content.
func (p plugin) push(repo name.Repository, tags []string, version string, options []remote.Option) error {
	for _, tag := range tags {
		there, err := remote.Head(repo.Tag(tag), options...)
		if missing(err) || !strings.HasPrefix(tag, version) {
			continue
		}
		if err != nil {
			return err
		}
		if there.Digest != p.digest() {
			return fmt.Errorf("%s is there already, with other content (%s, not %s); a released version does not change: choose a new one",
				repo.Tag(tag), there.Digest, p.digest())
		}
	}
	if err := remote.WriteLayer(repo, p.layer, options...); err != nil {
		return err
	}
	if err := remote.WriteLayer(repo, p.config, options...); err != nil {
		return err
	}
	for _, tag := range tags {
		if err := remote.Put(repo.Tag(tag), p, options...); err != nil {
			return err
		}
		fmt.Printf("%s@%s\n", repo.Tag(tag), p.digest())
	}
	return nil
}

// missing returns true for a registry's answer that it has no such tag.
func missing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// pluginScope is a transport that asks for tokens for plugins, as an engine does (moby v2.0.0-beta.24, daemon/pkg/plugin/registry.go):
// Docker Hub takes a plugin with no other. Only a request for a token has a scope, in its query or in its form.
type pluginScope struct{ inner http.RoundTripper }

func (s pluginScope) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	if widen(query) {
		r = r.Clone(r.Context())
		r.URL.RawQuery = query.Encode()
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return s.inner.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	widen(form)
	body = []byte(form.Encode())
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return s.inner.RoundTrip(r)
}

// widen lets scopes for images be for plugins, and returns false if there are none.
func widen(values url.Values) (changed bool) {
	for i, list := range values["scope"] {
		scopes := strings.Split(list, " ")
		for j, scope := range scopes {
			if path, ok := strings.CutPrefix(scope, "repository:"); ok {
				scopes[j], changed = "repository(plugin):"+path, true
			}
		}
		values["scope"][i] = strings.Join(scopes, " ")
	}
	return changed
}
