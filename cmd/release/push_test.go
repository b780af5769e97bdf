package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// serve serves a registry and returns its host.
func serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// get returns what a registry has, and its media type.
func get(t *testing.T, host, path string) (status int, mediaType string, body []byte) {
	t.Helper()
	answer, err := http.Get("http://" + host + "/v2/mellanox/passthrough/" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), body
}

// TestPush: a plugin has the form and the tags that an engine expects. latest is the last final version of amd64.
func TestPush(t *testing.T) {
	host := serve(t)
	repository := host + "/mellanox/passthrough"
	for _, r := range []release{packed(t, "v0.1.0", "1"), packed(t, "v0.2.0-rc1", "2")} {
		for range 2 { // again: it is there already, and is the same
			if err := r.push(context.Background(), repository); err != nil {
				t.Fatal(err)
			}
		}
	}
	manifests := map[string]string{}
	for _, tag := range []string{"v0.1.0", "v0.1.0-amd64", "v0.1.0-arm64", "latest", "latest-amd64", "latest-arm64", "v0.2.0-rc1", "v0.2.0-rc1-arm64"} {
		status, mediaType, manifest := get(t, host, "manifests/"+tag)
		if status != http.StatusOK || mediaType != "application/vnd.docker.distribution.manifest.v2+json" {
			t.Errorf("%s: status %d, %s", tag, status, mediaType)
		}
		manifests[tag] = string(manifest)
	}
	if manifests["latest"] != manifests["v0.1.0-amd64"] || manifests["v0.1.0"] != manifests["latest"] || manifests["latest-arm64"] != manifests["v0.1.0-arm64"] ||
		manifests["v0.1.0"] == manifests["v0.1.0-arm64"] || manifests["v0.1.0"] == manifests["v0.2.0-rc1"] {
		t.Errorf("the tags have %v", manifests)
	}

	var manifest struct {
		Config struct{ MediaType, Digest string }
		Layers []struct{ MediaType, Digest string }
	}
	if err := json.Unmarshal([]byte(manifests["v0.1.0"]), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Config.MediaType != "application/vnd.docker.plugin.v1+json" || len(manifest.Layers) != 1 ||
		manifest.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar.gzip" {
		t.Errorf("the manifest is %s", manifests["v0.1.0"])
	}
	_, _, config := get(t, host, "blobs/"+manifest.Config.Digest)
	if want := `"rootfs":{"diff_ids":["` + manifest.Layers[0].Digest + `"],"type":"layers"}`; !strings.Contains(string(config), want) {
		t.Errorf("the config is %s, without %s", config, want)
	}
}

// TestPushRefuses: a released version does not change, and files that are not those that were packed are not pushed.
func TestPushRefuses(t *testing.T) {
	host := serve(t)
	if err := packed(t, "v0.1.0", "1").push(context.Background(), host+"/mellanox/passthrough"); err != nil {
		t.Fatal(err)
	}
	_, _, before := get(t, host, "manifests/latest")
	err := packed(t, "v0.1.0", "other").push(context.Background(), host+"/mellanox/passthrough")
	if err == nil || !strings.Contains(err.Error(), "v0.1.0-amd64 is there already, with other content") {
		t.Errorf("another v0.1.0: %v", err)
	}
	if _, _, after := get(t, host, "manifests/latest"); string(after) != string(before) {
		t.Errorf("latest is now %s", after)
	}

	r := packed(t, "v0.2.0", "1")
	if err := os.WriteFile(filepath.Join(r.dist, r.pluginArchive("arm64")), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.push(context.Background(), host+"/mellanox/passthrough"); err == nil || !strings.Contains(err.Error(), "make the release again") {
		t.Errorf("a changed archive: %v", err)
	}
	if status, _, _ := get(t, host, "manifests/v0.2.0-amd64"); status != http.StatusNotFound {
		t.Errorf("a changed release is there: status %d", status)
	}
}

// TestScope: of a token server a token for plugins is asked for, as engines do, by either of the ways in which one is.
func TestScope(t *testing.T) {
	const want = "repository(plugin):mellanox/passthrough:push,pull"
	for _, way := range []string{http.MethodGet, http.MethodPost} {
		var mu sync.Mutex
		var got []string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.FormValue("scope"), r.FormValue("service"))
		}))
		t.Cleanup(s.Close)
		form := "scope=repository%3Amellanox%2Fpassthrough%3Apush%2Cpull&service=registry"
		r, err := http.NewRequest(way, s.URL+"/token?"+form, nil)
		if way == http.MethodPost {
			r, err = http.NewRequest(way, s.URL+"/token", strings.NewReader(form))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if err != nil {
			t.Fatal(err)
		}
		answer, err := pluginScope{http.DefaultTransport}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		mu.Lock()
		if len(got) != 2 || got[0] != want || got[1] != "registry" {
			t.Errorf("%s: asked for %q, want %s", way, got, want)
		}
		mu.Unlock()
	}
}
