//go:build kernel

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	cniversion "github.com/containernetworking/cni/pkg/version"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestVersions: containernetworking's own library, as runtimes call it, with each version of the specification, and what runtimes give beside the
// configuration: capabilities, and names in CNI_ARGS that only they know.
func TestVersions(t *testing.T) {
	h := newHost(t)
	for _, version := range cniversion.All.SupportedVersions() {
		t.Run(version, func(t *testing.T) {
			h := host{t, h.dir, h.socket}
			has := func(least string) bool {
				ok, err := cniversion.GreaterThanOrEqualTo(version, least)
				return ok && err == nil
			}
			list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion": %q, "name": "spec", "plugins": [{"type": "sriov", "netdevice": "e0",
				"mode": "macvlan", "socket": %q, "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "passthrough", "subnet": "10.1.0.0/24",
				"gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}}]}`, version, h.socket)))
			if err != nil {
				t.Fatal(err)
			}
			cni := libcni.NewCNIConfigWithCacheDir([]string{built}, t.TempDir(), nil)
			must := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			caps, err := cni.ValidateNetworkList(t.Context(), list)
			must("validate", err)
			if slices.Sort(caps); !slices.Equal(caps, []string{"ips", "mac"}) {
				t.Errorf("capabilities %v", caps)
			}
			info, err := cni.GetVersionInfo(t.Context(), "sriov")
			must("VERSION", err)
			if !slices.Equal(info.SupportedVersions(), cniversion.All.SupportedVersions()) {
				t.Errorf("it supports %v", info.SupportedVersions())
			}
			must("STATUS", cni.GetStatusNetworkList(t.Context(), list))

			rt := &libcni.RuntimeConf{ContainerID: "pod", NetNS: h.netns("pod"), IfName: "net1", Args: [][2]string{{"IgnoreUnknown", "true"},
				{"NOMAD_ALLOC_ID", "1"}, {"K8S_POD_NAME", "web-0"}}, CapabilityArgs: map[string]any{"ips": []string{"10.1.0.7"}, "mac": "02:00:00:00:00:42"}}
			res, err := cni.AddNetworkList(t.Context(), list, rt)
			must("ADD", err)
			wantResult(t, version, res, rt)
			cached, err := cni.GetNetworkListCachedResult(list, rt)
			must("the result that the runtime keeps", err)
			wantResult(t, version, cached, rt)
			if inside := Sh(t, "ip -n pod address show net1; ip -n pod route"); !strings.Contains(inside, "10.1.0.7/24") ||
				!strings.Contains(inside, "02:00:00:00:00:42") || !strings.Contains(inside, "default via 10.1.0.1") {
				t.Errorf("inside:\n%s", inside)
			}
			check := func() error { return cni.CheckNetworkList(t.Context(), list, rt) }
			if has("0.4.0") {
				must("CHECK", check())
			} else if check() == nil {
				t.Error("CHECK is not in this version, and succeeds")
			}
			must("GC of nothing", cni.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "pod", IfName: "net1"}}}))
			if has("0.4.0") {
				must("CHECK after GC", check())
				Sh(t, "ip -n pod address flush dev net1")
				if check() == nil {
					t.Error("CHECK succeeds without the address")
				}
			}
			must("DEL", cni.DelNetworkList(t.Context(), list, rt))
			must("DEL again", cni.DelNetworkList(t.Context(), list, rt))
			h.wantFree()

			_, err = cni.AddNetworkList(t.Context(), list, rt)
			must("ADD after DEL", err)
			must("GC", cni.GCNetworkList(t.Context(), list, nil))
			h.wantFree()
		})
	}
}

// wantResult checks a result: its form is that of its version, and it can be converted to the current one, which has what was asked for.
func wantResult(t *testing.T, version string, res types.Result, rt *libcni.RuntimeConf) {
	t.Helper()
	if res == nil || res.Version() != version {
		t.Fatalf("the result is %+v", res)
	}
	text, err := json.Marshal(res)
	if err == nil {
		res, err = create.Create(version, text)
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	got, err := current.NewResultFromResult(res)
	if err != nil || len(got.IPs) != 1 || got.IPs[0].Address.String() != "10.1.0.7/24" || got.IPs[0].Gateway.String() != "10.1.0.1" || len(got.Routes) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	if named, _ := cniversion.GreaterThanOrEqualTo(version, "0.3.0"); !named { // before that there are no interfaces in results
		return
	}
	if i := got.Interfaces; len(i) != 1 || i[0].Name != rt.IfName || i[0].Sandbox != rt.NetNS || i[0].Mac != "02:00:00:00:00:42" || got.IPs[0].Interface == nil {
		t.Errorf("%s", text)
	}
}

// TestErrorCodes: errors have the codes of the specification, and what was refused leaves nothing.
func TestErrorCodes(t *testing.T) {
	h := newHost(t)
	ns := h.netns("pod")
	none := h.socket + "-none"
	for name, c := range map[string]struct {
		conf, command string
		env           []string // in place of those of a good call
		code          uint
		msg           string // part of it
	}{
		"a version that is not there":     {conf: `{"cniVersion": "9.9.9", "name": "n"}`, code: types.ErrIncompatibleCNIVersion},
		"CHECK before 0.4.0":              {conf: `{"cniVersion": "0.3.1", "name": "n"}`, command: "CHECK", code: types.ErrIncompatibleCNIVersion},
		"STATUS before 1.1.0":             {conf: `{"cniVersion": "1.0.0", "name": "n"}`, command: "STATUS", code: types.ErrIncompatibleCNIVersion},
		"GC before 1.1.0":                 {conf: `{"cniVersion": "1.0.0", "name": "n"}`, command: "GC", code: types.ErrIncompatibleCNIVersion},
		"a key that is not known":         {conf: `{"name": "n", "netdevice": "e0", "vlann": 5}`, code: types.ErrUnsupportedField, msg: `key vlann, value "5"`},
		"no container":                    {env: []string{"CNI_CONTAINERID="}, code: types.ErrInvalidEnvironmentVariables, msg: "CNI_CONTAINERID"},
		"a container that is no name":     {env: []string{"CNI_CONTAINERID=a b"}, code: types.ErrInvalidEnvironmentVariables},
		"no namespace":                    {env: []string{"CNI_NETNS="}, code: types.ErrInvalidEnvironmentVariables, msg: "CNI_NETNS"},
		"an interface that is no name":    {env: []string{"CNI_IFNAME=net/1"}, code: types.ErrInvalidEnvironmentVariables},
		"a command that is none":          {command: "MAKE", code: types.ErrInvalidEnvironmentVariables, msg: "MAKE"},
		"no JSON":                         {conf: `{`, code: types.ErrDecodingFailure},
		"no name":                         {conf: `{"netdevice": "e0"}`, code: types.ErrInvalidNetworkConfig, msg: "name"},
		"a value that is none":            {conf: `{"name": "n", "netdevice": "e0", "mtu": "big"}`, code: types.ErrInvalidNetworkConfig, msg: "mtu"},
		"no device":                       {conf: `{"name": "n"}`, code: types.ErrInvalidNetworkConfig, msg: "netdevice"},
		"an argument that is not known":   {env: []string{"CNI_ARGS=CORE=1"}, code: types.ErrInvalidNetworkConfig, msg: "CORE"},
		"a namespace that is not there":   {env: []string{"CNI_NETNS=/run/netns/none"}, code: types.ErrInvalidNetNS, msg: "/run/netns/none"},
		"a device that is not there":      {conf: `{"name": "n", "netdevice": "e9", "mode": "macvlan"}`, code: types.ErrInternal, msg: "e9"},
		"ADD without a process":           {conf: `{"name": "n", "netdevice": "e0", "socket": "` + none + `"}`, code: types.ErrTryAgainLater},
		"CHECK without a process":         {conf: `{"name": "n", "netdevice": "e0", "socket": "` + none + `"}`, command: "CHECK", code: types.ErrTryAgainLater},
		"DEL without a process":           {conf: `{"name": "n", "netdevice": "e0", "socket": "` + none + `"}`, command: "DEL", code: types.ErrTryAgainLater},
		"GC without a process":            {conf: `{"name": "n", "netdevice": "e0", "socket": "` + none + `"}`, command: "GC", code: types.ErrTryAgainLater},
		"STATUS without a process":        {conf: `{"name": "n", "netdevice": "e0", "socket": "` + none + `"}`, command: "STATUS", code: types.ErrPluginNotAvailable},
		"STATUS without the IPAM plugin":  {conf: `{"name": "n", "netdevice": "e0", "ipam": {"type": "none"}}`, command: "STATUS", code: types.ErrInternal, msg: "none"},
		"no socket, as before an install": {conf: `{"name": "n", "netdevice": "e0", "socket": ""}`, code: types.ErrTryAgainLater, msg: "no socket of the plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := c.conf
			if conf == "" {
				conf = `{"name": "n", "netdevice": "e0", "mode": "macvlan"}`
			}
			if end, ok := strings.CutPrefix(conf, `{"name"`); ok {
				conf = `{"cniVersion": "1.1.0", "type": "sriov", "name"` + end
			}
			if strings.HasSuffix(conf, "}") && !strings.Contains(conf, `"socket"`) {
				conf = h.conf(conf)
			}
			command := c.command
			if command == "" {
				command = "ADD"
			}
			cmd := exec.CommandContext(context.Background(), filepath.Join(built, "sriov"))
			cmd.Env = append(append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=pod", "CNI_NETNS="+ns, "CNI_IFNAME=net1", "CNI_PATH="+built), c.env...)
			cmd.Stdin = strings.NewReader(conf)
			out, err := cmd.Output()
			var got types.Error
			if failed := json.Unmarshal(out, &got); err == nil || failed != nil {
				t.Fatalf("%s: %v, %v", out, err, failed)
			}
			if got.Code != c.code || got.Msg == "" || !strings.Contains(got.Msg+got.Details, c.msg) {
				t.Errorf("the code is not %d, or %q is not in the error: %s", c.code, c.msg, out)
			}
		})
	}
	h.wantFree()
}
