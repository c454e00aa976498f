package sidecar

import (
	"path"
	"slices"
	"strings"
)

// scratch is the writable directory that every sidecar has.
const scratch = "/tmp"

// reserved are the directories of a container that nothing may be mounted over: those of the kernel and of the agent.
var reserved = []string{"/proc", "/sys", "/dev", "/run/sidemount"}

// hostPaths reads the directories of the host that the client shall see.
func (s Source) hostPaths() ([]string, error) {
	var dirs []string
	for entry := range strings.SplitSeq(s.Attributes[attrHostPath], ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		dir, problem := hostDir(entry)
		if problem != "" {
			return nil, s.bad(attrHostPath, "has a host directory that "+problem, `write absolute paths, separated by commas, as in "/etc/ssl/certs,/data"`)
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// hostDir makes a directory canonical. problem completes "a directory that …".
func hostDir(entry string) (dir, problem string) {
	entry = strings.TrimSpace(entry)
	switch {
	case !strings.HasPrefix(entry, "/"):
		return "", "is not an absolute path"
	case strings.ContainsFunc(entry, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' || r == '*' }):
		return "", "has a colon, a star or a control character in its path"
	case slices.Contains(strings.Split(entry, "/"), ".."):
		return "", `has ".." in its path`
	}
	dir = path.Clean(entry)
	if dir == "/" {
		return "", "is the root of the host"
	}
	for _, r := range reserved {
		if within(dir, r) || within(r, dir) {
			return "", "lies over or under " + r + " of the sidecar"
		}
	}
	return dir, ""
}

// visible is true for an absolute path that the client can open and write.
func visible(file string, hostPaths []string) bool {
	return strings.HasPrefix(file, "/") && (inside(path.Clean(file), hostPaths) || within(path.Clean(file), scratch))
}

func inside(file string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(file, dir) })
}

// within is true if the clean path file is dir or lies in it.
func within(file, dir string) bool {
	return file == dir || strings.HasPrefix(file, dir+"/")
}
