// Package juicefs holds the JuiceFS client of Sidemount: package engine opens a volume, package filesystem serves it and
// survives its own death, and command sidemount-juicefs joins them under sidemount-agent. The package itself has no code.
//
// It is a Go module of its own, because JuiceFS's dependencies are many and partly replaced by forks, and because it needs cgo.
// JuiceFS (Apache-2.0) is imported as a module and not changed; only its engine packages (pkg/meta, pkg/chunk, pkg/object, pkg/vfs) are
// used, under upstream go-fuse.
package juicefs
