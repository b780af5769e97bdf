// Package credential reads the files with which a client shows a server who it is, and knows the server. Each is read anew when it is needed, so
// that what was renewed is used without a restart. Its errors name the file, not the setting that names it.
package credential

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrOpenToAll: a secret that every user of the host can read is none.
var ErrOpenToAll = errors.New("can be read or written by every user of the host")

// TLS returns the configuration of a client that trusts the certificates in the file ca, or those that the system trusts if it is "", and shows
// the certificate in the file cert, whose key is in the file key; "" for none.
func TLS(ca, cert, key string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s has no certificate in PEM", ca)
		}
	}
	if cert == "" {
		return t, nil
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	// Read for each connection, so that a renewed certificate is used.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	return t, nil
}

// Secret returns the first line of a file, which is a password or a token. The error matches [ErrOpenToAll] if other users can read the file.
func Secret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return "", fmt.Errorf("%s %w (mode %#o)", path, ErrOpenToAll, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", errors.New("the first line of " + path + " is empty")
	}
	return line, nil
}
