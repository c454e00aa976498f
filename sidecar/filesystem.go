package sidecar

import "github.com/sidemount/sidemount/mount"

// FileSystem returns the file system that a JuiceFS Secret describes, for work on it that mounts nothing. object is what errors
// blame. Files of the host count as visible: who does that work knows what it can see. The error is an *Error.
func FileSystem(object string, secret map[string]string) (mount.Volume, error) {
	// The empty directory holds every absolute path.
	checked, _, err := juicefsSecret(object, secret, []string{""})
	if err != nil {
		return mount.Volume{}, err
	}
	return mount.Volume{Client: mount.JuiceFS, Secret: checked}, nil
}
