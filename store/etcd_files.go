package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// unusable is the error of a file of ours: etcd was not asked.
type unusable struct{ error }

// Unwrap returns the cause.
func (u *unusable) Unwrap() error { return u.error }

// urls are the endpoints as the client wants them: the scheme says whether TLS is spoken.
func (c *EtcdConfig) urls() []string {
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

// tls is what the connection is encrypted with, nil for nothing.
func (c *EtcdConfig) tls() (*tls.Config, error) {
	if c.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, &unusable{fmt.Errorf("ca: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &unusable{fmt.Errorf("ca: %s has no certificate in PEM", c.CA)}
	}
	t := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if c.Cert == "" {
		return t, nil
	}
	if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return nil, &unusable{fmt.Errorf("cert and key: %w", err)}
	}
	// Read for each connection, so that a certificate that was renewed is used.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		return &pair, err
	}
	return t, nil
}

// password is the first line of its file.
func (c *EtcdConfig) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", &unusable{fmt.Errorf("password: %w", err)}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", &unusable{errors.New("password: the first line of " + c.PasswordFile + " is empty")}
	}
	return line, nil
}
