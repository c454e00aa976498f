package sidecar

import (
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// BrokerContainer is the container that holds the sessions of a pod on a node that has nothing of ours. No volume's sidecar can
// have this name.
const BrokerContainer = "sidemount"

// GuestAgent is where the image of Guest has the agent.
const GuestAgent = "/usr/local/bin/sidemount-agent"

// Directories of the broker's container, and the socket that tells how far its sessions are.
const (
	GuestRun     = "/run/sidemount/run"
	GuestMounts  = "/run/sidemount/mounts"
	GuestToken   = "/run/sidemount/token"
	StatusMount  = "/run/sidemount/status"
	StatusSocket = StatusMount + "/status.sock"
)

// GuestCA is the variable with the authorities of the service's certificate, in PEM; they are public.
const GuestCA = "SIDEMOUNT_CA"

// Volumes of a pod with a broker of its own.
const (
	runVolume    = prefix + "run"
	mountsVolume = prefix + "mounts"
	tokenVolume  = prefix + "token"
)

// tokenFile is the token's name in its directory, tokenSeconds how long it is valid; the kubelet renews it.
const (
	tokenFile    = "token"
	tokenSeconds = 3600
)

// startupFailures ends a sidecar's first wait: at one probe a second the kubelet then restarts the container, which does no
// harm and no good.
const startupFailures = 3600

// Guest describes a pod's own broker: one privileged container that makes the mounts, holds the sessions and asks a service for
// their volumes. The clients' containers are what they are on a node of ours, without any privilege.
//
// The pod's volume stays as it is, so that the scheduler binds its claim and nobody deletes a claim in use; no container mounts
// it any more, so that no kubelet looks for its driver. In its place containers mount a directory of an emptyDir in which
// the broker's mounts appear. They are not at the root of the emptyDir: the kubelet would count every file of the volume as
// the pod's use of the node's disk, and no container could start again on a mount whose broker has died.
type Guest struct {
	// Image has the agent at GuestAgent. Required.
	Image string
	// Servers are addresses of the service, host:port, tried in this order. Required.
	Servers []string
	// ServerName is the name in the service's certificate. Required.
	ServerName string
	// CA are the authorities of that certificate, in PEM. Required.
	CA string
	// Audience is whom the pod's token is for. Required.
	Audience string
	// Resources of the broker's container. Default: DefaultGuestResources.
	Resources *corev1.ResourceRequirements
}

// DefaultGuestResources are the broker's: it passes no data on.
func DefaultGuestResources() *corev1.ResourceRequirements {
	return &corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("24Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
	}
}

func (g *Guest) check() error {
	if g.Image == "" || len(g.Servers) == 0 || g.ServerName == "" || g.CA == "" || g.Audience == "" {
		return errors.New("a pod's own broker needs an image, and the service's address, name, authorities and audience")
	}
	return nil
}

// guestPlace is a node that has nothing of ours: everything is an emptyDir of the pod.
type guestPlace struct {
	pod *corev1.Pod
	*Guest
}

var _ place = guestPlace{}

func (guestPlace) names([]Mount) (containers, volumes []string) {
	return []string{BrokerContainer}, []string{runVolume, mountsVolume, tokenVolume}
}

func (p guestPlace) furnish(mounts []Mount) []corev1.Container {
	for _, name := range []string{agentVolume, runVolume, mountsVolume} {
		addVolume(p.pod, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	seconds, mode := int64(tokenSeconds), int32(0o400)
	addVolume(p.pod, corev1.Volume{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: p.Audience, ExpirationSeconds: &seconds, Path: tokenFile,
		}}},
	}}})
	return []corev1.Container{p.broker(mounts)}
}

// broker is the only privileged container: Kubernetes allows Bidirectional propagation to no other.
func (p guestPlace) broker(mounts []Mount) corev1.Container {
	always, outward := corev1.ContainerRestartPolicyAlways, corev1.MountPropagationBidirectional
	root, no, yes := int64(0), false, true
	resources := p.Resources
	if resources == nil {
		resources = DefaultGuestResources()
	}
	return corev1.Container{
		Name:            BrokerContainer,
		Image:           p.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         p.command(mounts),
		Env:             []corev1.EnvVar{{Name: GuestCA, Value: p.CA}},
		Resources:       *resources.DeepCopy(),
		RestartPolicy:   &always,
		StartupProbe:    startup(GuestAgent, GuestRun+"/status/status.sock", "mounted"),
		SecurityContext: &corev1.SecurityContext{
			Privileged: &yes, RunAsUser: &root, RunAsGroup: &root, RunAsNonRoot: &no, ReadOnlyRootFilesystem: &yes,
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: agentVolume, MountPath: AgentMount},
			{Name: runVolume, MountPath: GuestRun},
			{Name: mountsVolume, MountPath: GuestMounts, MountPropagation: &outward},
			{Name: tokenVolume, MountPath: GuestToken, ReadOnly: true},
		},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// command names the pod's volumes with the identity of their clients. What the volumes are the service finds out from the pod
// itself, so that no argument can ask for another one's.
func (p guestPlace) command(mounts []Mount) []string {
	argv := []string{GuestAgent, "supervise", "-server-name", p.ServerName, "-token", GuestToken + "/" + tokenFile}
	for _, server := range p.Servers {
		argv = append(argv, "-server", server)
	}
	for _, m := range mounts {
		argv = append(argv, "-volume", strings.Join([]string{
			m.Volume.Name, strconv.FormatInt(m.UID, 10), strconv.FormatInt(m.GID, 10), string(GuestSession(m.Volume.Name)),
		}, ":"))
	}
	return argv
}

// startup is a probe that asks the broker and touches no file system.
func startup(agent, socket, state string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{agent, "ready", "-socket", socket, state}}},
		PeriodSeconds:    1,
		TimeoutSeconds:   5,
		SuccessThreshold: 1,
		FailureThreshold: startupFailures,
	}
}

func (guestPlace) session(m Mount) Place {
	return Place{Session: &corev1.VolumeMount{
		Name: runVolume, MountPath: SessionMount, ReadOnly: true,
		SubPath: "sessions/" + string(GuestSession(m.Volume.Name)),
	}}
}

// finish lets the clients start side by side and the pod go on when all of them serve: the last one's probe asks for all.
func (p guestPlace) finish(sidecars []corev1.Container) {
	last := &sidecars[len(sidecars)-1]
	last.StartupProbe = startup(AgentPath, StatusSocket, "serving")
	last.VolumeMounts = append(last.VolumeMounts, corev1.VolumeMount{Name: runVolume, MountPath: StatusMount, SubPath: "status", ReadOnly: true})
}

// redirect has every container mount the session's directory in place of the volume.
func (p guestPlace) redirect(m Mount) error {
	eachMounts(p.pod, func(_ string, mounts []corev1.VolumeMount) {
		for n := range mounts {
			if mounts[n].Name == m.Volume.Name {
				enter(&mounts[n], m)
			}
		}
	})
	return nil
}

func enter(mount *corev1.VolumeMount, m Mount) {
	mount.Name = mountsVolume
	if mount.SubPathExpr != "" {
		mount.SubPathExpr = m.Volume.Name + "/" + mount.SubPathExpr
	} else {
		mount.SubPath = path.Join(m.Volume.Name, mount.SubPath)
	}
	// Propagation and a recursive read-only mount exclude each other.
	if r := mount.RecursiveReadOnly; r == nil || *r == corev1.RecursiveReadOnlyDisabled {
		receive(mount, m)
	}
}

func (p guestPlace) redirected(m Mount) bool {
	all := true
	eachMounts(p.pod, func(_ string, mounts []corev1.VolumeMount) {
		all = all && !slices.ContainsFunc(mounts, func(v corev1.VolumeMount) bool { return v.Name == m.Volume.Name })
	})
	return all
}
