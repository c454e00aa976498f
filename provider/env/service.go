package env

import (
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// masterService is in every pod's environment, from the namespace default, whatever enableServiceLinks says: client
// libraries find the API server by it.
const masterService = "kubernetes"

// serviceVars returns the variables that describe the services which the pod may link to, sorted by name.
func serviceVars(lister corelisters.ServiceLister, namespace string, links bool) ([]Var, error) {
	if lister == nil {
		return nil, nil
	}
	services, err := linkedServices(lister, namespace, links)
	if err != nil {
		return nil, err
	}
	var vars []Var
	for _, s := range services {
		vars = append(vars, describe(s)...)
	}
	slices.SortStableFunc(vars, func(a, b Var) int { return strings.Compare(a.Name, b.Name) })
	return vars, nil
}

func linkedServices(lister corelisters.ServiceLister, namespace string, links bool) ([]*corev1.Service, error) {
	byName := map[string]*corev1.Service{}
	if links {
		services, err := lister.Services(namespace).List(labels.Everything())
		if err != nil {
			return nil, err
		}
		for _, s := range services {
			byName[s.Name] = s
		}
	}
	masters, err := lister.Services(corev1.NamespaceDefault).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, s := range masters {
		// A pod's own service of that name wins, as it does on every node.
		if _, own := byName[s.Name]; s.Name == masterService && !own {
			byName[s.Name] = s
		}
	}
	services := make([]*corev1.Service, 0, len(byName))
	for _, s := range byName {
		if s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone && len(s.Spec.Ports) > 0 {
			services = append(services, s)
		}
	}
	return services, nil
}

// describe returns the variables of one service: {NAME}_SERVICE_HOST and _SERVICE_PORT, and the older form that container
// links used ({NAME}_PORT_80_TCP_ADDR).
func describe(s *corev1.Service) []Var {
	prefix := variableName(s.Name)
	ip := s.Spec.ClusterIP
	vars := []Var{
		{prefix + "_SERVICE_HOST", ip},
		{prefix + "_SERVICE_PORT", portNumber(s.Spec.Ports[0])},
		{prefix + "_PORT", portURL(ip, s.Spec.Ports[0])},
	}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			vars = append(vars, Var{prefix + "_SERVICE_PORT_" + variableName(p.Name), portNumber(p)})
		}
		link := prefix + "_PORT_" + portNumber(p) + "_" + strings.ToUpper(protocol(p))
		vars = append(vars,
			Var{link, portURL(ip, p)},
			Var{link + "_PROTO", protocol(p)},
			Var{link + "_PORT", portNumber(p)},
			Var{link + "_ADDR", ip},
		)
	}
	return vars
}

func variableName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

func portNumber(p corev1.ServicePort) string { return strconv.Itoa(int(p.Port)) }

func portURL(ip string, p corev1.ServicePort) string {
	return protocol(p) + "://" + net.JoinHostPort(ip, portNumber(p))
}

func protocol(p corev1.ServicePort) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return strings.ToLower(string(p.Protocol))
}
