package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mellanox/passthrough/store/etcdstore"
)

const (
	storeBolt     = "bolt"    // the ledger in the state directory
	schemeEtcd    = "etcd://" // one that the nodes of a cluster share
	defaultPrefix = "/passthrough"
)

// parseStore parses the setting STORE, which says where pools and addresses are kept. It returns nil for this node's own ledger, and both a
// configuration and an error if that has the right form and is refused. File
// names are relative to the state directory, which both the plugin and an administrator of the host can see.
func parseStore(text, stateDir string) (*etcdstore.Config, error) {
	if text == storeBolt {
		return nil, nil
	}
	rest, ok := strings.CutPrefix(text, schemeEtcd)
	if !ok {
		return nil, fmt.Errorf("neither %s nor %s", storeBolt, schemeEtcd)
	}
	hosts, query, _ := strings.Cut(rest, "?")
	c := &etcdstore.Config{Prefix: defaultPrefix}
	for _, h := range strings.Split(strings.TrimSuffix(hosts, "/"), ",") {
		host, port, err := net.SplitHostPort(h)
		if err != nil || host == "" || port == "" || strings.ContainsAny(h, "@/") {
			return nil, errors.New("an endpoint is HOST:PORT")
		}
		c.Endpoints = append(c.Endpoints, h)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what follows the question mark is no query")
	}
	for name, v := range values {
		if err := setEtcd(c, name, v, stateDir); err != nil {
			return nil, err
		}
	}
	return c, c.Check()
}

// setEtcd sets one parameter of the query in c.
func setEtcd(c *etcdstore.Config, name string, values []string, stateDir string) error {
	value := values[0]
	if len(values) > 1 || value == "" {
		return fmt.Errorf("%s must be there once and not be empty", name)
	}
	file := func(into *string) error {
		*into = value
		if !filepath.IsAbs(value) {
			*into = filepath.Join(stateDir, value)
		}
		return nil
	}
	switch name {
	case "prefix":
		c.Prefix = value
		if !etcdPrefix.MatchString(value) {
			return errors.New("the prefix is a path such as " + defaultPrefix)
		}
	case "user":
		c.User = value
	case "ca":
		return file(&c.CA)
	case "cert":
		return file(&c.Cert)
	case "key":
		return file(&c.Key)
	case "password-file":
		return file(&c.PasswordFile)
	case "insecure":
		c.Insecure = true
		if value != "yes" {
			return errors.New("insecure is yes or not there")
		}
	default:
		return fmt.Errorf("there is no parameter %s", name)
	}
	return nil
}

var (
	// etcdPrefix matches the prefixes that the keys of a cluster may have.
	etcdPrefix = regexp.MustCompile(`^(/[A-Za-z0-9._-]+){1,16}/?$`)
	// passwords matches where a user could put a password. It belongs into a file, because docker plugin inspect shows the environment.
	passwords = regexp.MustCompile(`//[^/?]*@|([?&]pass[a-z]*=)[^&]*`)
)

// withoutPassword returns the value of a setting with passwords replaced, for errors and logs.
func withoutPassword(value string) string {
	return passwords.ReplaceAllStringFunc(value, func(found string) string {
		if name, _, ok := strings.Cut(found, "="); ok && found[0] != '/' {
			return name + "=***"
		}
		return "//***@"
	})
}
