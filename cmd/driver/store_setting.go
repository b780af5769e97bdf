package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/store/etcdstore"
)

const (
	storeBolt     = "bolt"     // the ledger in the state directory
	schemeEtcd    = "etcd://"  // one that the nodes of a cluster share
	schemeRemote  = "https://" // the ledger in the state directory, with the addresses of an IPAM server
	defaultPrefix = "/passthrough"
)

// shared returns true if pools and addresses are in a store that nodes share.
func (c config) shared() bool { return strings.HasPrefix(c.store, schemeEtcd) }

// parseStore parses the setting STORE, which says where pools and addresses are kept. It returns nil for this node's own ledger, and both a
// configuration and an error if that has the right form and is refused. File
// names are relative to the state directory, which both the plugin and an administrator of the host can see.
func parseStore(text, stateDir string) (*etcdstore.Config, error) {
	if text == storeBolt {
		return nil, nil
	}
	if strings.HasPrefix(text, schemeRemote) {
		_, err := parseRemote(text, stateDir)
		return nil, err
	}
	rest, ok := strings.CutPrefix(text, schemeEtcd)
	if !ok {
		return nil, fmt.Errorf("neither %s nor %s nor %s", storeBolt, schemeEtcd, schemeRemote)
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
	if err := parameters(query, func(name, value string) error { return setEtcd(c, name, value, stateDir) }); err != nil {
		return nil, err
	}
	return c, c.Check()
}

// parseRemote parses the IPAM server of the setting STORE; nil for none.
func parseRemote(text, stateDir string) (*remote.Config, error) {
	if !strings.HasPrefix(text, schemeRemote) {
		return nil, nil
	}
	server, query, _ := strings.Cut(text, "?")
	c := &remote.Config{URL: server}
	files := map[string]*string{"ca": &c.CA, "cert": &c.Cert, "key": &c.Key, "token-file": &c.TokenFile}
	err := parameters(query, func(name, value string) error {
		if files[name] == nil {
			return fmt.Errorf("there is no parameter %s", name)
		}
		*files[name] = inDir(stateDir, value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Check()
}

// parameters calls set for each parameter of a query.
func parameters(query string, set func(name, value string) error) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("what follows the question mark is no query")
	}
	for name, v := range values {
		if len(v) > 1 || v[0] == "" {
			return fmt.Errorf("%s must be there once and not be empty", name)
		}
		if err := set(name, v[0]); err != nil {
			return err
		}
	}
	return nil
}

// inDir returns the path of a file that may be relative to a folder.
func inDir(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// setEtcd sets one parameter of the query in c.
func setEtcd(c *etcdstore.Config, name, value, stateDir string) error {
	file := func(into *string) error {
		*into = inDir(stateDir, value)
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
	passwords = regexp.MustCompile(`//[^/?]*@|([?&](?:pass[a-z]*|token)=)[^&]*`)
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
