package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sidemount/sidemount/hack/cluster/internal/machine"
	"github.com/sidemount/sidemount/hack/cluster/internal/pki"
	"github.com/sidemount/sidemount/hack/cluster/internal/process"
)

// ErrNotFound means that there is no cluster of that name on this host.
var ErrNotFound = errors.New("no such cluster")

// State is the state file: all that later commands, and tests, have to know. Paths are those of the host, and are the
// same inside unless a field says otherwise.
type State struct {
	Name string `json:"name"`
	// Dir holds everything below; Bin the programs.
	Dir string `json:"dir"`
	Bin string `json:"bin"`

	// BootID is that of the kernel on which the processes were started: on another one their pids mean nothing.
	BootID string `json:"bootID"`
	// Machine is the process whose end is the end of all others.
	Machine      process.Ref `json:"machine"`
	PIDNamespace uint64      `json:"pidNamespace"`
	// Slot is the number N in the network 10.99.N.0/24.
	Slot int `json:"slot"`
	// Device is the host's end of the link, HostAddress its address, Address that of the control plane.
	Device      string `json:"device"`
	HostAddress string `json:"hostAddress"`
	Address     string `json:"address"`
	// Cgroup is the parent of all cgroups of the cluster, in each hierarchy.
	Cgroup string `json:"cgroup"`

	Server string `json:"server"`
	// Kubeconfig is that of a cluster administrator; Kubectl a script that uses it unless told otherwise.
	Kubeconfig   string   `json:"kubeconfig"`
	Kubectl      string   `json:"kubectl"`
	CA           string   `json:"ca"`
	Registry     Registry `json:"registry"`
	AuthRegistry Registry `json:"authRegistry"`

	// Components are all processes by name: "kube-apiserver", "node-1/kubelet".
	Components map[string]Component `json:"components"`
	// Nodes by name.
	Nodes map[string]Node `json:"nodes"`
}

// Registry is where images are pulled from.
type Registry struct {
	Address  string `json:"address"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// Component is a process of the cluster.
type Component struct {
	process.Ref
	Argv   []string `json:"argv"`
	Log    string   `json:"log"`
	Health Health   `json:"health"`
}

// Node is a node of the cluster.
type Node struct {
	Name string `json:"name"`
	// Virtual nodes have no kubelet.
	Virtual bool   `json:"virtual"`
	Address string `json:"address"`
	// Dir holds what belongs to the node alone.
	Dir string `json:"dir"`
	// Holder keeps the namespaces: `nsenter -t PID -m` looks inside.
	Holder process.Ref `json:"holder"`
	// Cgroup is the root of the node's cgroup namespace as the host sees it.
	Cgroup string `json:"cgroup"`

	ContainerdSocket string `json:"containerdSocket"`
	ContainerdRoot   string `json:"containerdRoot"`
	// KubeletDir is /var/lib/kubelet inside the node, PodLogs /var/log/pods, ContainerLogs /var/log/containers.
	KubeletDir    string `json:"kubeletDir"`
	PodLogs       string `json:"podLogs"`
	ContainerLogs string `json:"containerLogs"`
	// RootDir is for the virtual node process; the same path inside and outside.
	RootDir string `json:"rootDir"`

	Kubeconfig string   `json:"kubeconfig"`
	Serving    pki.Pair `json:"serving"`
	// Process is how the virtual node process is started, when it has been.
	Process VirtualProcess `json:"process,omitzero"`
}

func statePath(dir string) string { return filepath.Join(dir, "state.json") }

// listDir holds a link to the directory of every cluster.
var listDir = filepath.Join(machine.RunDir, "clusters")

// List names the clusters of this host.
func List() ([]string, error) {
	entries, err := os.ReadDir(listDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Load reads the state of the named cluster. One in the default place is found without the list too, which a reboot
// empties.
func Load(name string) (*State, error) {
	dir, err := os.Readlink(filepath.Join(listDir, name))
	listed := err == nil
	if !listed {
		dir = filepath.Join(DefaultDir, name)
	}
	b, err := os.ReadFile(statePath(dir))
	if !listed && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cluster %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of cluster %q: %w", name, err)
	}
	s := &State{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", statePath(dir), err)
	}
	return s, nil
}

// save replaces the state file as a whole, so that a reader never sees half of one.
func (s *State) save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	part := statePath(s.Dir) + ".part"
	if err := os.WriteFile(part, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(part, statePath(s.Dir))
}

// enlist makes the cluster known to List and Load.
func (s *State) enlist() error {
	if err := os.MkdirAll(listDir, 0o755); err != nil {
		return err
	}
	link := filepath.Join(listDir, s.Name)
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	return os.Symlink(s.Dir, link)
}

// alive tells whether the machine of the state still runs.
func (s *State) alive() bool { return s.BootID == bootID() && s.Machine.Alive() }

// bootID is new with every start of the kernel.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func (s *State) link() machine.Link { return machine.Link{Slot: s.Slot} }
func (s *State) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}
func (s *State) bin(name string) string { return filepath.Join(s.Bin, name) }
func (s *State) pki() string            { return s.path("pki") }
