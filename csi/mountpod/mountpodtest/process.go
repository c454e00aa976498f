package mountpodtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/sidecar"
)

// process is a pod and the process that is its only container. The pods' mu guards pod, started, failure and agent.
type process struct {
	pods    *Pods
	pod     *corev1.Pod
	started bool
	failure *corev1.PodStatus
	// agent is the running process, nil between two.
	agent *os.Process
	// end is closed when the pod is deleted; kill wants the present process killed.
	end  chan struct{}
	kill chan struct{}
}

// shoot asks for the death of the present process.
func (r *process) shoot() {
	select {
	case r.kill <- struct{}{}:
	default:
	}
}

// run is the kubelet of this pod.
func (r *process) run() {
	for restarts := 0; ; restarts++ {
		exit := r.once(restarts)
		if r.over() {
			return
		}
		r.status(func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{
				Name: r.pod.Spec.Containers[0].Name, Image: r.pod.Spec.Containers[0].Image, RestartCount: int32(restarts + 1),
				State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(exit)}},
			}}
		})
		select {
		case <-r.end:
		case <-time.After(restartPause):
		}
	}
}

// over ends the pod if it is deleted or has failed for good.
func (r *process) over() bool {
	r.pods.mu.Lock()
	defer r.pods.mu.Unlock()
	if r.failure != nil {
		r.pod.Status, r.started = *r.failure, false
		r.pods.tell(r)
	}
	select {
	case <-r.end:
		r.pods.gone(r)
		return true
	default:
		return r.failure != nil
	}
}

func (r *process) status(change func(*corev1.PodStatus)) {
	r.pods.mu.Lock()
	defer r.pods.mu.Unlock()
	change(&r.pod.Status)
	r.pods.tell(r)
}

// once runs the container until its process ends, and returns its exit code.
func (r *process) once(restarts int) int {
	cmd, err := r.command(restarts)
	if err == nil {
		defer cmd.Stdout.(*os.File).Close()
		err = cmd.Start()
	}
	if err != nil {
		return 128
	}
	r.status(func(s *corev1.PodStatus) {
		r.agent = cmd.Process
		s.Phase = corev1.PodRunning
		s.ContainerStatuses = []corev1.ContainerStatus{{
			Name: r.pod.Spec.Containers[0].Name, Image: r.pod.Spec.Containers[0].Image, RestartCount: int32(restarts),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}
	})
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its exit code is in ProcessState
		close(ended)
	}()
	r.watch(cmd, ended)
	r.pods.mu.Lock()
	r.agent = nil
	r.pods.mu.Unlock()
	return cmd.ProcessState.ExitCode()
}

// watch sees a process to its end: SIGTERM when the pod is deleted, SIGKILL after the grace period or when somebody asks for it.
func (r *process) watch(cmd *exec.Cmd, ended <-chan struct{}) {
	end, grace := r.end, time.NewTimer(time.Hour)
	defer grace.Stop()
	for {
		select {
		case <-ended:
			return
		case <-end:
			end = nil
			_ = cmd.Process.Signal(syscall.SIGTERM)
			grace.Reset(r.grace())
		case <-grace.C:
			_ = cmd.Process.Kill()
		case <-r.kill:
			_ = cmd.Process.Kill()
		}
	}
}

// grace is how long the pod may take to end.
func (r *process) grace() time.Duration {
	r.pods.mu.Lock()
	defer r.pods.mu.Unlock()
	seconds := *r.pod.Spec.TerminationGracePeriodSeconds
	if r.pod.DeletionGracePeriodSeconds != nil {
		seconds = *r.pod.DeletionGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

// command is the container's, with its paths made those of this machine, and with the container's user.
func (r *process) command(restarts int) (*exec.Cmd, error) {
	c := &r.pod.Spec.Containers[0]
	paths, err := r.paths(c)
	if err != nil {
		return nil, err
	}
	argv := make([]string, 0, len(c.Command)+2)
	for n, arg := range r.words(c) {
		argv = append(argv, paths.translate(arg))
		if n == 1 {
			argv = append(argv, "-socket", paths.translate(sidecar.SessionMount+"/agent.sock"))
		}
	}
	out, err := os.OpenFile(filepath.Join(r.pods.Logs, fmt.Sprintf("%s.%d.log", r.pod.Name, restarts)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uint32(*c.SecurityContext.RunAsUser), Gid: uint32(*c.SecurityContext.RunAsGroup)},
	}
	return cmd, nil
}

// words are the container's command, with the client that its image really has.
func (r *process) words(c *corev1.Container) []string {
	r.pods.mu.Lock()
	defer r.pods.mu.Unlock()
	client, broken := r.pods.broken[c.Image]
	end := slices.Index(c.Command, "--")
	if !broken || end < 0 {
		return c.Command
	}
	return append(slices.Clone(c.Command[:end+1]), client)
}

// paths are directories and programs of a container, and where they are on this machine.
type paths map[string]string

func (r *process) paths(c *corev1.Container) (paths, error) {
	p := paths{}
	for inImage, here := range r.pods.Programs {
		p[inImage] = here
	}
	for _, m := range c.VolumeMounts {
		for _, v := range r.pod.Spec.Volumes {
			if v.Name != m.Name || v.HostPath == nil {
				continue
			}
			if _, err := os.Stat(v.HostPath.Path); err != nil {
				return nil, fmt.Errorf("volume %s: %w", v.Name, err)
			}
			p[m.MountPath] = v.HostPath.Path
		}
	}
	return p, nil
}

func (p paths) translate(arg string) string {
	for from, to := range p {
		if arg == from || strings.HasPrefix(arg, from+"/") {
			return to + strings.TrimPrefix(arg, from)
		}
	}
	return arg
}
