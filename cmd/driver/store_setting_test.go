package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/store/etcdstore"
)

func TestParseStore(t *testing.T) {
	for text, want := range map[string]*etcdstore.Config{
		"bolt": nil,
		"etcd://n1:2379": {
			Endpoints: []string{"n1:2379"}, Prefix: "/passthrough",
		},
		"etcd://n1:2379,[fd00::1]:2379?prefix=/dc1/passthrough&ca=etcd/ca.pem&cert=c.pem&key=/etc/k.pem&user=u&password-file=pw": {
			Endpoints: []string{"n1:2379", "[fd00::1]:2379"}, Prefix: "/dc1/passthrough",
			CA: "/data/etcd/ca.pem", Cert: "/data/c.pem", Key: "/etc/k.pem", User: "u", PasswordFile: "/data/pw",
		},
		"etcd://n1:2379?insecure=yes&user=u&password-file=pw": {
			Endpoints: []string{"n1:2379"}, Prefix: "/passthrough", User: "u", PasswordFile: "/data/pw", Insecure: true,
		},
	} {
		got, err := parseStore(text, "/data")
		if _, bad := configFrom(nil, env("STORE="+text)); bad != nil {
			t.Errorf("%s: %v", text, bad)
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", text, err, diff)
		}
	}
}

func TestParseRemote(t *testing.T) {
	const text = "https://ipam.example:10000/v?ca=ca.pem&cert=/etc/c.pem&key=k.pem&token-file=token"
	want := &remote.Config{URL: "https://ipam.example:10000/v", CA: "/data/ca.pem", Cert: "/etc/c.pem", Key: "/data/k.pem", TokenFile: "/data/token"}
	got, err := parseRemote(text, "/data")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	c, err := configFrom(nil, env("STORE="+text))
	if err != nil || c.shared() || c.journalFile() != "releases" || c.remoteIPAM() == nil {
		t.Errorf("%+v, %v", c, err)
	}
	if etcd, err := parseStore(text, "/data"); etcd != nil || err != nil {
		t.Errorf("etcd: %+v, %v", etcd, err)
	}
	if none, err := parseRemote("bolt", "/data"); none != nil || err != nil {
		t.Errorf("bolt: %+v, %v", none, err)
	}
	if _, err := configFrom(nil, env("STORE=https://ipam?x=y")); err == nil || !strings.HasSuffix(err.Error(), ": there is no parameter x") {
		t.Errorf("a setting that is refused: %v", err)
	}
}

func TestParseStoreRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"consul://n1":                     "neither bolt nor etcd:// nor https://",
		"https://":                        "IPAM server: the address is https://HOST:PORT, with or without a path",
		"https://u:pw@ipam":               "IPAM server: a password has no place in the address; name the file of a token",
		"https://ipam?cert=c.pem":         "IPAM server: a certificate and its key go together",
		"https://ipam?ca=":                "ca must be there once and not be empty",
		"https://ipam?token=hidden":       "there is no parameter token",
		"etcd://":                         "an endpoint is HOST:PORT",
		"etcd://n1":                       "an endpoint is HOST:PORT",
		"etcd://n1:2379,":                 "an endpoint is HOST:PORT",
		"etcd://u:pw@n1:2379":             "an endpoint is HOST:PORT",
		"etcd://n1:2379/x":                "an endpoint is HOST:PORT",
		"etcd://n1:2379?prefix=x":         "the prefix is a path such as /passthrough",
		"etcd://n1:2379?prefix=/a b":      "the prefix is a path such as /passthrough",
		"etcd://n1:2379?user=u":           "etcd: a user and the file of its password go together",
		"etcd://n1:2379?ca=":              "ca must be there once and not be empty",
		"etcd://n1:2379?ca=a&ca=b":        "ca must be there once and not be empty",
		"etcd://n1:2379?cert=a&key=b":     "etcd: a certificate of our own needs the CA of etcd's, too",
		"etcd://n1:2379?password=secret1": "there is no parameter password",
		"etcd://n1:2379?insecure=no":      "insecure is yes or not there",
		"etcd://n1:2379?user=u&password-file=pw": "etcd: without TLS the password crosses the network in clear: give etcd a certificate " +
			"and set ca, or set insecure=yes if this network is trusted",
	} {
		if _, err := parseStore(text, "/data"); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	for value, want := range map[string]string{
		"etcd://root:hidden@n1:2379":                    "etcd://***@n1:2379",
		"etcd://root:hid@den@n1:2379,n2:2379":           "etcd://***@n1:2379,n2:2379",
		"etcd://n1:2379?user=u&password=hidden&ca=x":    "etcd://n1:2379?user=u&password=***&ca=x",
		"https://u:hidden@ipam":                         "https://***@ipam",
		"https://ipam?token=hidden&ca=x":                "https://ipam?token=***&ca=x",
		"https://ipam?token-file=x":                     "https://ipam?token-file=x",
		"etcd://n1:2379?pass=hidden":                    "etcd://n1:2379?pass=***",
		"etcd://n1:2379?password-file=pw":               "etcd://n1:2379?password-file=pw",
		"/run/docker/plugins/passthrough.sock":          "/run/docker/plugins/passthrough.sock",
		"etcd://n1:2379?cert=a&password-file=/etc/x@y/": "etcd://n1:2379?cert=a&password-file=/etc/x@y/",
	} {
		if got := withoutPassword(value); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
		_, err := configFrom(nil, env("STORE="+value))
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	_, refused := configFrom(nil, env("STORE=etcd://n1:2379?user=u&password-file=pw"))
	if refused == nil || !strings.HasPrefix(refused.Error(),
		`environment: STORE="etcd://n1:2379?user=u&password-file=pw": etcd: without TLS the password crosses the network in clear`) {
		t.Errorf("the error does not say why: %v", refused)
	}
	_, err := configFrom(nil, env("STORE=etcd://root:hidden@n1:2379"))
	const want = `environment: STORE="etcd://***@n1:2379": must be bolt, https://HOST:PORT?ca=FILE&cert=FILE&key=FILE&token-file=FILE or etcd://HOST:PORT,HOST:PORT...?prefix=/PREFIX` +
		`&ca=FILE&cert=FILE&key=FILE&user=NAME&password-file=FILE&insecure=yes`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
