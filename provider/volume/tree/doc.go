// Package tree opens, makes, measures and removes directories whose content somebody else may change at the same time. It
// never follows a path out of the directory that it is given (openat2 with RESOLVE_BENEATH), and what removes never crosses a
// mount; it mounts nothing itself.
package tree
