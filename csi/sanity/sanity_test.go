package sanity

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega/format"
	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
)

func TestMain(m *testing.M) { os.Exit(mountpodtest.Main(m)) }

func TestSanity(t *testing.T) {
	mountpodtest.NeedSessions(t)
	d := start(t)
	d.format()
	config := sanity.NewTestConfig()
	config.Address = "unix://" + d.socket
	config.SecretsFile = d.secretsFile
	config.TargetPath = filepath.Join(d.kubelet, "pods", "sanity", "volumes", "kubernetes.io~csi")
	config.StagingPath = filepath.Join(d.node.Dir, "staging")
	config.CreateTargetDir = func(path string) (string, error) { return path, os.MkdirAll(path, 0o750) }
	config.CheckPath = look
	config.TestVolumeParameters = map[string]string{"juicefs/host-path": d.storage}
	config.TestVolumeSize = 1 << 30
	config.TestVolumeExpandSize = 2 << 30
	config.TestNodeVolumeAttachLimit = true
	context := sanity.GinkgoTest(&config)
	t.Cleanup(context.Finalize)
	RegisterFailHandler(Fail)
	suite, reporter := GinkgoConfiguration()
	reporter.Succinct = true
	RunSpecs(t, "The driver under csi-sanity", suite, reporter)
}

// skipped are tests that are left out for one reason.
type skipped struct {
	Reason string   `json:"reason"`
	Tests  []string `json:"tests"`
}

// look tells csi-sanity what is at a path, without following a link.
func look(path string) (sanity.PathKind, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return sanity.PathIsNotFound, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return sanity.PathIsDir, nil
	case info.Mode().IsRegular():
		return sanity.PathIsFile, nil
	}
	return sanity.PathIsOther, nil
}

var _ = ReportAfterSuite("the published list of what is left out is true", func(report Report) {
	text, err := os.ReadFile("skipped.yaml")
	Expect(err).NotTo(HaveOccurred())
	var list []skipped
	Expect(yaml.UnmarshalStrict(text, &list)).To(Succeed())
	published, left := []string{}, []string{}
	for _, s := range list {
		Expect(s.Reason).NotTo(BeEmpty())
		published = append(published, s.Tests...)
	}
	for _, r := range report.SpecReports {
		if r.State == types.SpecStateSkipped || r.State == types.SpecStatePending {
			left = append(left, r.FullText())
		}
	}
	format.MaxLength = 0
	Expect(left).To(ConsistOf(published))
})
