// Package image builds container images of one layer from files of this machine, as tar archives that `ctr images import`
// and every registry client read, and pushes them. It does not run anything: there is no Dockerfile.
package image
