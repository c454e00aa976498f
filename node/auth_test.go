package node

import (
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

func TestAttributesOf(t *testing.T) {
	who := &user.DefaultInfo{Name: "jane"}
	for _, tc := range []struct {
		method, path string
		verb         string
		subresources []string
	}{
		{"GET", "/pods", "get", []string{"pods", "proxy"}},
		{"GET", "/pods/", "get", []string{"pods", "proxy"}},
		{"GET", "/podsandmore", "get", []string{"proxy"}},
		{"GET", "/runningpods/", "get", []string{"pods", "proxy"}},
		{"GET", "/healthz", "get", []string{"healthz", "proxy"}},
		{"GET", "/healthz/ping", "get", []string{"healthz", "proxy"}},
		{"GET", "/configz", "get", []string{"configz", "proxy"}},
		{"GET", "/stats/summary", "get", []string{"stats"}},
		{"GET", "/metrics", "get", []string{"metrics"}},
		{"GET", "/metrics/resource", "get", []string{"metrics"}},
		{"GET", "/logs/syslog", "get", []string{"log"}},
		{"POST", "/checkpoint/ns/pod/c", "create", []string{"checkpoint"}},
		{"GET", "/containerLogs/ns/pod/c", "get", []string{"proxy"}},
		{"POST", "/exec/ns/pod/c", "create", []string{"proxy"}},
		{"GET", "/exec/ns/pod/c", "get", []string{"proxy"}},
		{"POST", "/run/ns/pod/c", "create", []string{"proxy"}},
		{"PUT", "/attach/ns/pod/c", "update", []string{"proxy"}},
		{"PATCH", "/x", "patch", []string{"proxy"}},
		{"DELETE", "/x", "delete", []string{"proxy"}},
		{"TRACE", "/x", "", []string{"proxy"}},
	} {
		var names []string
		for _, a := range AttributesOf("virtual-1", who, tc.method, tc.path) {
			names = append(names, a.GetSubresource())
			if a.GetVerb() != tc.verb || a.GetResource() != "nodes" || a.GetName() != "virtual-1" || a.GetAPIVersion() != "v1" ||
				!a.IsResourceRequest() || a.GetPath() != tc.path || a.GetUser().GetName() != "jane" || a.GetNamespace() != "" {
				t.Errorf("%s %s: %+v", tc.method, tc.path, a)
			}
		}
		if !slices.Equal(names, tc.subresources) {
			t.Errorf("%s %s: subresources %v, want %v", tc.method, tc.path, names, tc.subresources)
		}
	}
}
