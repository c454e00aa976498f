// Package volumetest runs tests of volumes with real mounts in a mount namespace of their own, so that a test that fails or
// dies leaves none on the machine. It holds no fakes.
package volumetest
