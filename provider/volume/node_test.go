package volume_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/object"
	"github.com/sidemount/sidemount/provider/volume"
)

// api is what a node sees of the API server, in memory.
type api struct {
	mu         sync.Mutex
	secrets    map[string]map[string][]byte
	configMaps map[string]map[string]string
	users      map[types.UID]bool
	onChange   []func(types.UID)

	tokens   int
	life     time.Duration
	tokenErr error
}

func newAPI() *api {
	return &api{secrets: map[string]map[string][]byte{}, configMaps: map[string]map[string]string{}, users: map[types.UID]bool{}, life: time.Hour}
}

func (a *api) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	data, ok := a.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}, nil
}

func (a *api) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	data, ok := a.configMaps[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data,
		BinaryData: map[string][]byte{"binary": {0xff, 0x00}},
	}, nil
}

func (a *api) Acquire(pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users[pod.UID] = true
}

func (a *api) Release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.users, uid)
}

func (a *api) OnChange(f func(types.UID)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onChange = append(a.onChange, f)
}

func (a *api) acquired() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.users)
}

// change applies f and tells every user.
func (a *api) change(f func()) {
	a.mu.Lock()
	f()
	var calls []func()
	for _, subscriber := range a.onChange {
		for uid := range a.users {
			calls = append(calls, func() { subscriber(uid) })
		}
	}
	a.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

func (a *api) Token(_ context.Context, pod *corev1.Pod, audience string, seconds int64) (object.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokenErr != nil {
		return object.Token{}, a.tokenErr
	}
	a.tokens++
	now := time.Now()
	return object.Token{
		Value: fmt.Sprintf("%s/%s/%d/%d", pod.UID, audience, seconds, a.tokens), Expires: now.Add(2 * a.life), Refresh: now.Add(a.life),
	}, nil
}

func (a *api) Forget(types.UID) {}

// node is a manager with its directory; everything that it has mounted is ended after the spec.
type node struct {
	*volume.Manager
	api    *api
	root   string
	failed chan error
}

func newNode(change ...func(*volume.Options)) *node {
	GinkgoHelper()
	n := &node{api: newAPI(), root: GinkgoT().TempDir(), failed: make(chan error, 100)}
	o := volume.Options{
		Root: n.root, Objects: n.api, Tokens: n.api,
		Failed:      func(_ *corev1.Pod, err error) { n.failed <- err },
		Allocatable: func() corev1.ResourceList { return corev1.ResourceList{"memory": resource.MustParse("1Gi")} },
	}
	for _, f := range change {
		f(&o)
	}
	m, err := volume.New(o)
	Expect(err).NotTo(HaveOccurred())
	n.Manager = m
	DeferCleanup(func() {
		points, err := mountpoint.Below(n.root)
		Expect(err).NotTo(HaveOccurred())
		for _, p := range points {
			Expect(mountpoint.Detach(p)).To(Succeed())
		}
	})
	return n
}

// run keeps the volumes fresh until the spec ends.
func (n *node) run() {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	DeferCleanup(func() {
		cancel()
		Eventually(ended).Should(Receive(Not(HaveOccurred())))
	})
	Eventually(func() int {
		n.api.mu.Lock()
		defer n.api.mu.Unlock()
		return len(n.api.onChange)
	}).Should(Equal(1))
}

func (n *node) setUp(ctx context.Context, pod *corev1.Pod) map[string]volume.Mount {
	GinkgoHelper()
	mounts, err := n.SetUp(ctx, pod)
	Expect(err).NotTo(HaveOccurred())
	return mounts
}

func ptr[T any](v T) *T { return &v }

// podWith returns a pod whose only container mounts every volume at /mnt/<name>.
func podWith(volumes ...corev1.Volume) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "4f1c", Labels: map[string]string{"app": "x"}},
		Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "app"}}},
	}
	for _, v := range volumes {
		pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/mnt/" + v.Name})
	}
	return pod
}

func emptyDir(name string, medium corev1.StorageMedium) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
}

func configMap(name string, change func(*corev1.ConfigMapVolumeSource)) corev1.Volume {
	source := &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
	if change != nil {
		change(source)
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: source}}
}

func secret(name string, change func(*corev1.SecretVolumeSource)) corev1.Volume {
	source := &corev1.SecretVolumeSource{SecretName: name}
	if change != nil {
		change(source)
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: source}}
}

func projected(name string, sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}
}

func hostPath(name, path string, t corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &t}}}
}

// read returns "mode content" of each visible file by its path.
func read(dir string) map[string]string {
	GinkgoHelper()
	got, err := look(dir)
	Expect(err).NotTo(HaveOccurred())
	return got
}

// look reads like read, but while the volume changes: what it was about to read may have been replaced.
func look(dir string) (map[string]string, error) {
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		real, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			got[e.Name()+strings.TrimPrefix(path, real)] = fmt.Sprintf("%o %s", info.Mode().Perm(), data)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

func stat(path string) (mode fs.FileMode, uid, gid uint32) {
	GinkgoHelper()
	info, err := os.Stat(path)
	Expect(err).NotTo(HaveOccurred())
	st := info.Sys().(*syscall.Stat_t)
	return info.Mode(), st.Uid, st.Gid
}
