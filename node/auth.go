package node

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Auth decides who calls and what they may do. Delegate makes one that asks the API server.
type Auth struct {
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// ClientCA is announced in the TLS handshake; nil announces none.
	ClientCA dynamiccertificates.CAContentProvider
}

// subresources maps a path prefix to the node's subresource that guards it, as the kubelet does
// (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/). Fine subresources are tried first; "proxy"
// stays as the older, coarser permission for them.
var subresources = []struct {
	prefix string
	names  []string
}{
	{"/pods", []string{"pods", "proxy"}},
	{"/runningpods", []string{"pods", "proxy"}},
	{"/healthz", []string{"healthz", "proxy"}},
	{"/configz", []string{"configz", "proxy"}},
	{"/stats", []string{"stats"}},
	{"/metrics", []string{"metrics"}},
	{"/logs", []string{"log"}},
	{"/checkpoint", []string{"checkpoint"}},
}

// verbs maps HTTP methods to API verbs. Other methods have the empty verb, which no rule but "*" allows.
var verbs = map[string]string{
	http.MethodPost:   "create",
	http.MethodGet:    "get",
	http.MethodPut:    "update",
	http.MethodPatch:  "patch",
	http.MethodDelete: "delete",
}

// AttributesOf returns the attributes of which one must be allowed for a request to this node's API. It is pure.
func AttributesOf(nodeName string, who user.Info, method, path string) []authorizer.Attributes {
	names := subresourcesOf(path)
	attributes := make([]authorizer.Attributes, 0, len(names))
	for _, name := range names {
		attributes = append(attributes, authorizer.AttributesRecord{
			User:            who,
			Verb:            verbs[method],
			APIVersion:      "v1",
			Resource:        "nodes",
			Subresource:     name,
			Name:            nodeName,
			ResourceRequest: true,
			Path:            path,
		})
	}
	return attributes
}

func subresourcesOf(path string) []string {
	for _, rule := range subresources {
		if path == rule.prefix || strings.HasPrefix(path, rule.prefix+"/") {
			return rule.names
		}
	}
	return []string{"proxy"}
}

// protect lets a request through to next when its sender is known and one of its attributes is allowed.
func (s *Server) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok, err := s.options.Auth.Authenticator.AuthenticateRequest(r)
		if err != nil {
			log.G(r.Context()).WithError(err).Debug("https api request not authenticated")
		}
		if err != nil || !ok {
			writeText(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		if status, text := s.authorize(r, answer.User); status != http.StatusOK {
			writeText(w, status, text)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorize(r *http.Request, who user.Info) (status int, text string) {
	attributes := AttributesOf(s.options.NodeName, who, r.Method, r.URL.Path)
	for _, a := range attributes {
		decision, _, err := s.options.Auth.Authorizer.Authorize(r.Context(), a)
		// RBAC may allow and yet report that a rule could not be evaluated: the decision counts first.
		if decision == authorizer.DecisionAllow {
			return http.StatusOK, ""
		}
		if err != nil {
			log.G(r.Context()).WithError(err).WithField("user", who.GetName()).Error("cannot authorize an https api request")
			return http.StatusInternalServerError, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)",
				who.GetName(), a.GetVerb(), a.GetResource(), a.GetSubresource())
		}
	}
	return http.StatusForbidden, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)\n",
		who.GetName(), verbs[r.Method], subresourcesOf(r.URL.Path))
}
