package engine

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/sidemount/sidemount/mount"
)

// Address is a metadata engine's address without its password.
type Address struct {
	// Driver is the URL's scheme.
	Driver string
	// Hosts are host:port of every server that the URL names; empty for a file.
	Hosts []string
	// File is the database's path; empty for a server.
	File string

	network string
	secrets []string
}

// defaultPorts of the drivers that are built in. "" means that the driver has no network address.
var defaultPorts = map[string]string{
	"redis": "6379", "rediss": "6379", "unix": "", "sqlite3": "", "mysql": "3306", "postgres": "5432",
}

// String is the address as it may be shown: hosts, never a user or a password.
func (a Address) String() string {
	if a.File != "" {
		return a.File
	}
	return strings.Join(a.Hosts, ",")
}

// Address of the metadata engine, for messages.
func (s *Spec) Address() Address {
	a, _ := parseAddress(s.MetaURL)
	return a
}

// parseAddress finds what may be shown and dialled in a metadata URL. The forms are those of JuiceFS:
//
//	redis[s]://[user:password@]host[:port][,host[:port]…]/db, unix://[:password@]/socket?db=1, sqlite3:///path,
//	mysql://user:password@(host:port)/db, mysql://user:password@unix(/socket)/db, postgres://user:password@host[:port]/db
func parseAddress(metaURL string) (Address, error) {
	driver, rest, _ := strings.Cut(metaURL, "://")
	a := Address{Driver: driver, network: "tcp"}
	port, known := defaultPorts[driver]
	if !known {
		return a, metaURLError("starts with none of redis://, rediss://, unix://, sqlite3://, mysql://, postgres://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	if driver == "sqlite3" {
		a.File = strings.TrimPrefix(rest, "file:")
		if !strings.HasPrefix(a.File, "/") {
			return a, metaURLError("must name an absolute path")
		}
		return a, nil
	}
	user := ""
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, rest = rest[:at], rest[at+1:]
	}
	a.addSecrets(user, query)
	if driver == "unix" {
		a.network, a.Hosts = "unix", []string{rest}
		return a, nil
	}
	hosts, _, _ := strings.Cut(rest, "/")
	if m := mysqlAddress.FindStringSubmatch(rest); driver == "mysql" && m != nil {
		hosts = m[2]
		if m[1] == "unix" {
			a.network, a.Hosts = "unix", []string{hosts}
			return a, nil
		}
	}
	if hosts == "" {
		return a, metaURLError("names no host")
	}
	a.Hosts = withPorts(driver, hosts, port)
	if driver != "mysql" { // the MySQL form is a DSN, not a URL; its driver parses it
		if _, err := url.Parse(metaURL); err != nil {
			return a, metaURLError("is not a URL; special characters of the password must be percent-encoded")
		}
	}
	return a, nil
}

var mysqlAddress = regexp.MustCompile(`^(tcp|unix)?\(([^)]*)\)`)

// withPorts completes a list of hosts. A Redis list may begin with the name of a Sentinel group, which is no host.
func withPorts(driver, list, port string) []string {
	var hosts []string
	parts := strings.Split(list, ",")
	if strings.HasPrefix(driver, "redis") && len(parts) > 1 && !strings.Contains(parts[0], ":") {
		parts, port = parts[1:], "26379"
	}
	if _, last, err := net.SplitHostPort(parts[len(parts)-1]); err == nil && last != "" {
		port = last
	}
	for _, p := range parts {
		host, own, err := net.SplitHostPort(p)
		if err != nil {
			host, own = strings.Trim(p, "[]"), port
		}
		hosts = append(hosts, net.JoinHostPort(host, own))
	}
	return hosts
}

// addSecrets notes the password as written and as it is meant, and secret query values.
func (a *Address) addSecrets(user, query string) {
	if _, password, ok := strings.Cut(user, ":"); ok && password != "" {
		a.secrets = append(a.secrets, password)
		if plain, err := url.PathUnescape(password); err == nil {
			a.secrets = append(a.secrets, plain)
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return
	}
	for key, v := range values {
		if strings.Contains(strings.ToLower(key), "password") {
			a.secrets = append(a.secrets, v...)
		}
	}
}

func metaURLError(what string) error {
	return fmt.Errorf("%w: Secret key \"metaurl\" %s", mount.ErrConfig, what)
}
