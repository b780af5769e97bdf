package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
)

// provenanceFile says of which commit the files of a release were made, and how: an in-toto statement with a predicate of SLSA.
const provenanceFile = "provenance.json"

type (
	digests   map[string]string
	statement struct {
		Type          string     `json:"_type"`
		Subject       []artifact `json:"subject"`
		PredicateType string     `json:"predicateType"`
		Predicate     provenance `json:"predicate"`
	}
	artifact struct {
		Name   string  `json:"name,omitempty"`
		URI    string  `json:"uri,omitempty"`
		Digest digests `json:"digest"`
	}
	provenance struct {
		BuildDefinition struct {
			BuildType            string            `json:"buildType"`
			ExternalParameters   map[string]string `json:"externalParameters"`
			InternalParameters   map[string]string `json:"internalParameters"`
			ResolvedDependencies []artifact        `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
		RunDetails struct {
			Builder struct {
				ID string `json:"id"`
			} `json:"builder"`
		} `json:"runDetails"`
	}
)

// writeProvenance writes the provenance of the files that are in dist. Like them it is the same each time.
func (r release) writeProvenance() error {
	const source = "https://github.com/mellanox/passthrough"
	files, err := os.ReadDir(r.dist)
	if err != nil {
		return err
	}
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	for _, file := range files {
		sum, err := sumOf(filepath.Join(r.dist, file.Name()))
		if err != nil {
			return err
		}
		s.Subject = append(s.Subject, artifact{Name: file.Name(), Digest: digests{"sha256": sum}})
	}
	build := &s.Predicate.BuildDefinition
	build.BuildType = source + "/blob/main/docs/release.md"
	build.ExternalParameters = map[string]string{"version": r.version}
	build.InternalParameters = map[string]string{"go": runtime.Version()}
	build.ResolvedDependencies = []artifact{{URI: "git+" + source, Digest: digests{"gitCommit": r.commit}}}
	s.Predicate.RunDetails.Builder.ID = source + "/blob/main/scripts/release"
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dist, provenanceFile), append(text, '\n'), 0o644)
}
