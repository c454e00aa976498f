package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// order is how a reader goes through the pages, in one directory on one cluster: what the README has made is still there for the others, and the page about
// installation ends with the opposite. Pages that are not in it have nothing to run.
var order = []string{"README.md", "docs/troubleshooting.md", "docs/migration.md", "charts/sidemount/README.md", "docs/install.md"}

// labName is the name of the cluster.
const labName = "docs"

var (
	cluster *lab.Lab
	redis   *lab.Redis
	// desk is the directory in which the reader works: everything of the repository is there, and what the pages have the reader write.
	desk string
	// tools is a directory of programs that come before the host's.
	tools string
)

// TestBlocks takes minutes and a machine for itself, so it runs when it is asked to.
func TestBlocks(t *testing.T) {
	if os.Getenv("SIDEMOUNT_DOCS") != "run" {
		t.Skip("skipped: set SIDEMOUNT_DOCS=run, or run make docs-test")
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: a cluster needs root")
	}
	RegisterFailHandler(Fail)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "What the documentation tells people to do")
}

// Every block that can be run belongs to a page that is run.
func TestEveryRunnablePageIsInTheOrder(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if (b.runnable() || b.Language == "yaml") && !slices.Contains(order, p.Path) {
				t.Errorf("%s:%d: nobody runs this block; put the page into order", p.Path, b.Line)
			}
		}
	}
}

// runnable is whether the block is run on a cluster.
func (b Block) runnable() bool {
	_, told := b.Options["notest"]
	return b.Language == "sh" && !told
}

// copier stands in for skopeo copy docker-archive:FILE docker://NAME. The cluster has one registry, from which every name is pulled, whatever its host.
const copier = `#!/bin/sh
set -eu
[ "$1" = copy ]
exec cluster image push --name ` + labName + ` "${2#docker-archive:}"
`

var _ = BeforeSuite(func() {
	desk = GinkgoT().TempDir()
	top, err := filepath.Abs(root)
	Expect(err).NotTo(HaveOccurred())
	entries, err := os.ReadDir(top)
	Expect(err).NotTo(HaveOccurred())
	for _, e := range entries {
		Expect(os.Symlink(filepath.Join(top, e.Name()), filepath.Join(desk, e.Name()))).To(Succeed())
	}
	tools = GinkgoT().TempDir()
	Expect(os.WriteFile(filepath.Join(tools, "skopeo"), []byte(copier), 0o700)).To(Succeed())
})

var _ = Describe("The documentation", Ordered, func() {
	for _, path := range order {
		page, err := ReadPage(path)
		if err != nil {
			panic(err) // while the tree of tests is built; TestLinksResolve says it more kindly
		}
		for _, b := range page.Blocks {
			if b.Options["cluster"] == "none" && b.runnable() {
				It(fmt.Sprintf("%s:%d works without a cluster", path, b.Line), func(ctx SpecContext) {
					Expect(run(ctx, b.Text)).To(Succeed())
				}, NodeTimeout(15*time.Minute))
			}
		}
	}

	It("has a cluster to work on", func(ctx SpecContext) {
		var err error
		cluster, err = lab.Start(ctx, labName, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		Expect(createNamespace(ctx, "storage")).To(Succeed())
		Eventually(func() error {
			_, err := cluster.Client.CoreV1().ServiceAccounts("storage").Get(ctx, "default", metav1.GetOptions{})
			return err
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		redis, err = cluster.StartRedis(ctx, "storage")
		Expect(err).NotTo(HaveOccurred())
	}, NodeTimeout(20*time.Minute))

	for _, path := range order {
		page, err := ReadPage(path)
		if err != nil {
			panic(err)
		}
		for _, b := range page.Blocks {
			where := fmt.Sprintf("%s:%d", path, b.Line)
			switch {
			case b.Options["cluster"] == "none":
			case b.runnable():
				It(where+" can be run", func(ctx SpecContext) { Expect(run(ctx, b.Text)).To(Succeed()) }, NodeTimeout(8*time.Minute))
			case b.Language == "yaml":
				It(where+" is accepted", func(ctx SpecContext) { Expect(accept(ctx, b)).To(Succeed()) }, NodeTimeout(time.Minute))
			}
		}
	}

	AfterAll(func(ctx SpecContext) {
		if cluster == nil {
			// What has come up of it before something failed; nothing is success.
			Expect(run(ctx, "CLUSTER_NAME="+labName+" hack/cluster.sh down")).To(Succeed())
			return
		}
		Expect(cluster.Stop(ctx)).To(Succeed())
	}, NodeTimeout(3*time.Minute))

	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() && cluster != nil {
			dump(ctx)
		}
	})
})

// run executes a block as a person does who has pasted it into a shell.
func run(ctx context.Context, script string) error {
	file := filepath.Join(GinkgoT().TempDir(), "block.sh")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", file)
	cmd.Dir, cmd.Env = desk, environment()
	cmd.Stdout, cmd.Stderr = GinkgoWriter, GinkgoWriter
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

func environment() []string {
	top, _ := filepath.Abs(root) // the working directory is there
	bin := os.Getenv("BIN")
	if bin == "" {
		bin = filepath.Join(top, ".cache", "bin")
	}
	helm := filepath.Join(os.TempDir(), "sidemount-helm")
	env := append(os.Environ(), "PATH="+tools+":"+bin+":"+os.Getenv("PATH"), "HELM_CACHE_HOME="+helm, "HELM_CONFIG_HOME="+helm, "HELM_DATA_HOME="+helm)
	if cluster != nil {
		env = append(env, "KUBECONFIG="+cluster.Kubeconfig)
	}
	return env
}

// accept writes a file for the reader, or has the API server look at objects without keeping them.
func accept(ctx context.Context, b Block) error {
	if name := b.Options["file"]; name != "" {
		text, err := standIns().Apply(b.Text)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(desk, filepath.Base(name)), text, 0o600)
	}
	file := filepath.Join(GinkgoT().TempDir(), "block.yaml")
	if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
		return err
	}
	if !strings.Contains(b.Text, "kind:") { // values of the chart
		server, err := cluster.Client.Discovery().ServerVersion()
		if err != nil {
			return err
		}
		return run(ctx, "helm template sidemount charts/sidemount --kube-version "+server.GitVersion+" --values "+file+" >/dev/null")
	}
	namespaces, err := Namespaces(b.Text)
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		if err := createNamespace(ctx, namespace); err != nil {
			return err
		}
	}
	out, err := cluster.Kubectl(ctx, "apply", "--dry-run=server", "-f", file)
	fmt.Fprint(GinkgoWriter, out)
	return err
}

// standIns are the cluster's file systems, and requests that a small machine can meet.
func standIns() StandIns {
	small := map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "32Mi"}}
	return StandIns{
		FileSystem: func(name string) map[string]string { return redis.JuiceFS(name, databaseOf(name)) },
		Values: map[string]any{
			"controller": map[string]any{"resources": small, "sidecarResources": small, "worker": map[string]any{"resources": small}},
			"node":       map[string]any{"resources": small},
		},
	}
}

// databases are the numbers of the databases that file systems have got, in the order in which pages name them.
var databases []string

func databaseOf(name string) int {
	if !slices.Contains(databases, name) {
		databases = append(databases, name)
	}
	return slices.Index(databases, name)
}

func createNamespace(ctx context.Context, name string) error {
	_, err := cluster.Kubectl(ctx, "create", "namespace", name)
	if err != nil && strings.Contains(err.Error(), "AlreadyExists") {
		return nil
	}
	return err
}

// dump prints what a person would look at first.
func dump(ctx context.Context) {
	for _, args := range [][]string{
		{"get", "pods,pvc,pv,storageclasses", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", "sidemount", "-l", "app.kubernetes.io/instance=sidemount", "--all-containers", "--tail=30", "--prefix"},
		{"logs", "-n", "sidemount", "-l", "app.kubernetes.io/name=sidemount-mount", "--tail=30", "--prefix"},
	} {
		out, err := cluster.Kubectl(ctx, args...)
		fmt.Fprintln(GinkgoWriter, "kubectl", args, err, "\n", out)
	}
}
