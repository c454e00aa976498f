// Package lab gives tests and benchmarks a real cluster (hack/cluster) and the few verbs they need on it. It asserts nothing.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Names that hack/cluster gives to its first nodes.
const (
	OrdinaryNode      = "node-1"
	OtherOrdinaryNode = "node-2" // of a cluster with two
	VirtualNode       = "vn-1"
)

// Size is the number of nodes of each kind.
type Size struct{ Ordinary, Virtual int }

// Lab is a running cluster with this tree's binaries on its virtual node.
type Lab struct {
	Name       string
	Kubeconfig string
	Config     *rest.Config
	Client     *kubernetes.Clientset

	bin  string
	root string
	own  bool
	log  io.Writer
}

// Start is StartSize with one node of each kind.
func Start(ctx context.Context, name string, log io.Writer) (*Lab, error) {
	return StartSize(ctx, name, Size{1, 1}, log)
}

// StartSize brings up the cluster named name, or uses the one that the environment variable SIDEMOUNT_LAB names, which Stop then
// leaves alone. Progress goes to log. The binaries must have been built (make build); they are in .cache/bin or where BIN says.
func StartSize(ctx context.Context, name string, size Size, log io.Writer) (*Lab, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: name, root: root, bin: filepath.Join(root, ".cache", "bin"), own: true, log: log}
	if given := os.Getenv("BIN"); given != "" {
		l.bin = given
	}
	if given := os.Getenv("SIDEMOUNT_LAB"); given != "" {
		l.Name, l.own = given, false
	}
	if _, err := os.Stat(filepath.Join(l.bin, "cluster")); err != nil {
		return nil, fmt.Errorf("the cluster's tools are not built; run make build: %w", err)
	}
	if l.own {
		if err := l.script(ctx, "up", "--nodes", strconv.Itoa(size.Ordinary), "--virtual", strconv.Itoa(size.Virtual)); err != nil {
			return nil, err
		}
	}
	return l, l.connect(ctx)
}

func (l *Lab) connect(ctx context.Context) error {
	path, err := l.Cluster(ctx, "kubeconfig", "--name", l.Name)
	if err != nil {
		return err
	}
	l.Kubeconfig = strings.TrimSpace(path)
	l.Config, err = clientcmd.BuildConfigFromFlags("", l.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig of %s: %w", l.Name, err)
	}
	l.Config.QPS, l.Config.Burst = 200, 400
	l.Client, err = kubernetes.NewForConfig(l.Config)
	return err
}

// State is the part of hack/cluster's state file that tests use.
type State struct {
	Components map[string]struct {
		PID int    `json:"pid"`
		Log string `json:"log"`
	} `json:"components"`
	Nodes map[string]struct {
		// PodLogs is the directory of the node's pods' logs.
		PodLogs string `json:"podLogs"`
	} `json:"nodes"`
	AuthRegistry struct {
		Address  string `json:"address"`
		Username string `json:"username"`
		Password string `json:"password"`
	} `json:"authRegistry"`
}

// State reads the cluster's state file; pids are those of this host.
func (l *Lab) State() (State, error) {
	var s State
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(l.Kubeconfig), "state.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(raw, &s)
}

// Stop ends a cluster that Start brought up; it fails if anything of it is left on the machine.
func (l *Lab) Stop(ctx context.Context) error {
	if !l.own {
		return nil
	}
	return l.script(ctx, "down")
}

// Cluster runs hack/cluster's program and returns what it prints.
func (l *Lab) Cluster(ctx context.Context, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, filepath.Join(l.bin, "cluster"), args...))
}

// OnNode runs a program in a node's namespaces and returns what it prints.
func (l *Lab) OnNode(ctx context.Context, node string, argv ...string) (string, error) {
	return l.Cluster(ctx, append([]string{"exec", "--name", l.Name, "--node", node, "--"}, argv...)...)
}

// Kubectl runs the real kubectl, as a user would, and returns what it prints.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, filepath.Join(l.bin, "kubectl"), append([]string{"--kubeconfig", l.Kubeconfig}, args...)...))
}

// Binary is the path of a program that the build made.
func (l *Lab) Binary(name string) string { return filepath.Join(l.bin, name) }

func (l *Lab) script(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(l.root, "hack", "cluster.sh"), args...)
	cmd.Env = append(os.Environ(), "CLUSTER_NAME="+l.Name, "BIN="+l.bin)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("hack/cluster.sh %s: %w", args[0], err)
	}
	return nil
}

func run(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// repository is the directory with the Makefile, above the directory that a test runs in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "Makefile")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no Makefile above the working directory")
}
