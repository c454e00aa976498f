package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sidemount/sidemount/test/lab"
)

// registry is where Kubernetes' tests look for their images; the cluster's own registry answers for it.
const registry = "registry.k8s.io/e2e-test-images/"

// shellImages are tests' images of which a shell and small tools are all that is asked for.
var shellImages = []string{registry + "busybox:1.37.0-1", registry + "busybox:1.36.1-1", registry + "glibc-dns-testing:2.0.0"}

// serverImages are run by tests, or only named by them, and need not do more than to stay.
var serverImages = []string{registry + "nginx:1.15-4", registry + "nginx:1.27-0"}

// tools are programs of this host that the tests call. bash stands for sh, because other shells drop variables that have a dash in their
// names from the environment, and busybox' prefers its own nc, which does not know UDP.
var tools = []string{"bash", "curl", "nc.openbsd"}

// pushImages makes the images that the tests use, under their names, from Debian's programs and Kubernetes' own.
func pushImages(ctx context.Context, l *lab.Lab, p programs) error {
	dir, err := os.MkdirTemp("", "sidemount-conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shell, err := shellFiles(ctx, dir)
	if err != nil {
		return err
	}
	agnhost := append([]string{"--file", p.agnhost + ":/agnhost:0755", "--link", "/agnhost:/agnhost-2", "--entrypoint", "/agnhost", "--cmd", "pause",
		"--link", "/usr/bin/bash:/bin/sh"}, shell...)
	// Here /bin/sh must speak as busybox does, and only PATH leads to bash.
	small := append([]string{"--link", "/bin/busybox:/bin/sh", "--link", "/usr/bin/bash:/usr/local/bin/sh", "--cmd", "sh"}, shell...)
	for name, args := range map[string][]string{
		"agnhost": append(names(registry+"agnhost:2.63.0", registry+"agnhost:2.55"), agnhost...),
		"servers": append(names(serverImages...), agnhost...),
		"shell":   append(names(shellImages...), small...),
		"nonroot": append(names(registry+"nonroot:1.5"), append(small, "--user", "1234:1234")...),
		"privileges": append(names(registry+"nonewprivs:1.4"), "--file", p.privileges+":/usr/local/bin/nnp:04755",
			"--cmd", "/usr/local/bin/nnp"),
		"pause": append(names("registry.k8s.io/pause:3.10.2"), "--file", l.Binary("pause")+":/pause:0755", "--entrypoint", "/pause", "--user", "65535:65535"),
	} {
		tar := filepath.Join(dir, name+".tar")
		if _, err := l.Cluster(ctx, append([]string{"image", "build", "--tar", tar}, args...)...); err != nil {
			return err
		}
		if _, err := l.Cluster(ctx, "image", "push", "--name", l.Name, tar); err != nil {
			return err
		}
	}
	return nil
}

func names(images ...string) (args []string) {
	for _, i := range images {
		args = append(args, "--name", i)
	}
	return args
}

// replaced are applets of busybox that something else stands for.
var replaced = []string{"busybox", "sh", "nc"}

// shellFiles are arguments for an image with busybox, a link for each of its applets, the tools, and an account for root and nobody.
func shellFiles(ctx context.Context, dir string) ([]string, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("install busybox-static first: %w", err)
	}
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox' applets: %w", err)
	}
	args := []string{"--env", "PATH=/usr/local/bin:/bin:/usr/bin:/", "--dir", "/tmp:1777", "--dir", "/root:0700", "--dir", "/var/tmp:1777", "--dir", "/home:0755",
		"--file", busybox + ":/bin/busybox:0755", "--link", "/bin/env:/usr/bin/env"}
	for applet := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(replaced, applet) {
			args = append(args, "--link", "/bin/busybox:/bin/"+applet)
		}
	}
	files, err := lab.Closure(ctx, tools)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		args = append(args, "--file", f)
	}
	args = append(args, "--link", "/usr/bin/nc.openbsd:/bin/nc")
	for name, content := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
		"group":  "root:x:0:\nnogroup:x:65534:\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--file", file+":/etc/"+name+":0644")
	}
	return args, nil
}
