package main

import "strings"

// imageTag is the tag of the images that belong to this program. A build says behind a + what it is made of, which a tag cannot have; the images of a release
// have the release's tag, as the chart wants them.
func imageTag() string {
	tag, _, _ := strings.Cut(version, "+")
	return tag
}
