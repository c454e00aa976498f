package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Pause is the image of the pod sandbox, also under the name that everybody knows it by.
func Pause(program string) Spec {
	return Spec{
		Names:      []string{"localhost/pause:1", "registry.k8s.io/pause:3.10"},
		Layer:      Layer{Files: []File{{Source: program, Target: "/pause", Mode: 0o755}}},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
	}
}

// Busybox is an image with the given static busybox and a link for each of its applets. Scratch is a directory for the
// two small files that it needs besides.
func Busybox(program, scratch string) (Spec, error) {
	out, err := exec.Command(program, "--list").Output()
	if err != nil {
		return Spec{}, fmt.Errorf("list busybox applets: %w", err)
	}
	layer := Layer{
		Dirs:  []Dir{{"tmp", 0o1777}, {"root", 0o700}, {"home", 0o755}, {"var/tmp", 0o1777}, {"proc", 0o755}, {"sys", 0o755}, {"dev", 0o755}},
		Files: []File{{Source: program, Target: "/bin/busybox", Mode: 0o755}},
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			layer.Links = append(layer.Links, Link{Target: "/bin/busybox", Name: "/bin/" + applet})
		}
	}
	layer.Links = append(layer.Links, Link{Target: "/bin/env", Name: "/usr/bin/env"})
	for name, content := range accounts {
		source := filepath.Join(scratch, name)
		if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
			return Spec{}, err
		}
		layer.Files = append(layer.Files, File{Source: source, Target: "/etc/" + name, Mode: 0o644})
	}
	return Spec{
		Names: []string{"busybox:1.36", "busybox:latest"},
		Layer: layer,
		Cmd:   []string{"sh"},
	}, nil
}

var accounts = map[string]string{
	"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
	"group":  "root:x:0:\nnobody:x:65534:\n",
}
