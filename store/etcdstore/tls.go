package etcdstore

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// fileError is the error of a file that STORE names. No request was sent.
type fileError struct{ error }

// errOpenToAll: a password that every user of the host can read is none.
var errOpenToAll = errors.New("can be read or written by every user of the host")

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
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, &fileError{fmt.Errorf("ca: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &fileError{fmt.Errorf("ca: %s has no certificate in PEM", c.CA)}
	}
	t := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if c.Cert == "" {
		return t, nil
	}
	if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return nil, &fileError{fmt.Errorf("cert and key: %w", err)}
	}
	// Read for each connection, so that a renewed certificate is used.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		return &pair, err
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
	info, err := os.Stat(c.PasswordFile)
	if err != nil {
		return "", &fileError{fmt.Errorf("password: %w", err)}
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return "", &fileError{fmt.Errorf("password: %s %w (mode %#o)", c.PasswordFile, errOpenToAll, mode)}
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", &fileError{fmt.Errorf("password: %w", err)}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", &fileError{errors.New("password: the first line of " + c.PasswordFile + " is empty")}
	}
	return line, nil
}
