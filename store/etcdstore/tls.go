package etcdstore

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"

	"github.com/mellanox/passthrough/internal/credential"
)

// fileError is the error of a file that STORE names. No request was sent.
type fileError struct{ error }

// Unwrap returns the cause.
func (u *fileError) Unwrap() error { return u.error }

// urls returns the endpoints as URLs, as the client demands. The scheme decides whether TLS is used.
func (c *Config) urls() []string {
	scheme := "http://"
	if c.CA != "" {
		scheme = "https://"
	}
	var urls []string
	for _, e := range c.Endpoints {
		urls = append(urls, scheme+e)
	}
	return urls
}

// tls returns the TLS configuration, nil for a connection without TLS.
func (c *Config) tls() (*tls.Config, error) {
	if c.CA == "" {
		return nil, nil
	}
	t, err := credential.TLS(c.CA, c.Cert, c.Key)
	if err != nil {
		return nil, &fileError{err}
	}
	return t, nil
}

// checksum returns a checksum of the contents of all files that the client is made with.
func (c *Config) checksum() (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, f := range []struct{ what, path string }{
		{"ca", c.CA}, {"cert and key", c.Cert}, {"cert and key", c.Key}, {"password", c.PasswordFile}} {
		if f.path == "" {
			continue
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			return sum, &fileError{fmt.Errorf("%s: %w", f.what, err)}
		}
		fmt.Fprintf(h, "%d ", len(text))
		h.Write(text)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// password returns the first line of the password file.
func (c *Config) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	password, err := credential.Secret(c.PasswordFile)
	if err != nil {
		return "", &fileError{fmt.Errorf("password: %w", err)}
	}
	return password, nil
}
