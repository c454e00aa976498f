package main

import "testing"

func TestImageTagIsTheRelease(t *testing.T) {
	before := version
	t.Cleanup(func() { version = before })
	for of, want := range map[string]string{"0.1.0+abcdef0-dirty": "0.1.0", "0.1.0": "0.1.0", "dev": "dev"} {
		version = of
		if got := imageTag(); got != want {
			t.Errorf("images of %s have the tag %s, want %s", of, got, want)
		}
	}
}
