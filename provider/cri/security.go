package cri

import (
	"fmt"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container must not see or write of /proc and /sys unless its procMount is Unmasked; the lists are those of the OCI
// runtimes' defaults, which the kubelet repeats for each container.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// effectiveSecurity lays the container's security context over the pod's.
func effectiveSecurity(pod *corev1.Pod, c *corev1.Container) *corev1.SecurityContext {
	sc := &corev1.SecurityContext{}
	if c.SecurityContext != nil {
		sc = c.SecurityContext.DeepCopy()
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return sc
	}
	inherit(&sc.RunAsUser, p.RunAsUser)
	inherit(&sc.RunAsGroup, p.RunAsGroup)
	inherit(&sc.RunAsNonRoot, p.RunAsNonRoot)
	inherit(&sc.SELinuxOptions, p.SELinuxOptions)
	inherit(&sc.SeccompProfile, p.SeccompProfile)
	inherit(&sc.AppArmorProfile, p.AppArmorProfile)
	return sc
}

func inherit[T any](field **T, fallback *T) {
	if *field == nil {
		*field = fallback
	}
}

// containerSecurity makes the security context of a container.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, in ContainerInput) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := effectiveSecurity(pod, c)
	if err := verifyNonRoot(sc, pod, c, in.Image); err != nil {
		return nil, err
	}
	namespaces, err := namespaceOptions(pod, in.UserNamespace)
	if err != nil {
		return nil, err
	}
	if in.TargetID != "" && namespaces.Pid == runtimeapi.NamespaceMode_CONTAINER {
		namespaces.Pid, namespaces.TargetId = runtimeapi.NamespaceMode_TARGET, in.TargetID
	}
	groups, policy, err := supplementalGroups(pod)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		Capabilities:             capabilities(sc.Capabilities),
		Privileged:               isTrue(sc.Privileged),
		NamespaceOptions:         namespaces,
		SelinuxOptions:           selinuxOptions(sc.SELinuxOptions),
		ReadonlyRootfs:           isTrue(sc.ReadOnlyRootFilesystem),
		SupplementalGroups:       groups,
		SupplementalGroupsPolicy: policy,
		NoNewPrivs:               sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
	}
	if sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount {
		out.MaskedPaths = slices.Concat(maskedPaths, in.Host.MaskedPaths)
		out.ReadonlyPaths = slices.Clone(readonlyPaths)
	}
	setUser(out, sc, in.Image)
	if out.Seccomp, err = seccomp(sc.SeccompProfile, in); err != nil {
		return nil, err
	}
	if err := setAppArmor(out, pod, c, sc.AppArmorProfile, in.Host); err != nil {
		return nil, err
	}
	return out, nil
}

// setUser takes the user from the pod or else from the image. The interface refuses a group without a user.
func setUser(out *runtimeapi.LinuxContainerSecurityContext, sc *corev1.SecurityContext, image Image) {
	switch {
	case sc.RunAsUser != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	case image.UID != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *image.UID}
	case image.Username != "":
		out.RunAsUsername = image.Username
	default:
		out.RunAsUser = &runtimeapi.Int64Value{}
	}
	if sc.RunAsGroup != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
}

// verifyNonRoot refuses a container that must not run as root and would, or might. The texts are the kubelet's.
func verifyNonRoot(sc *corev1.SecurityContext, pod *corev1.Pod, c *corev1.Container, image Image) error {
	if !isTrue(sc.RunAsNonRoot) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID), c.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return misfit("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case image.UID == nil && image.Username != "":
		return misfit("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.Username, where)
	case image.UID == nil || *image.UID == 0:
		return misfit("container has runAsNonRoot and image will run as root %s", where)
	case *image.UID < 0 || *image.UID > 1<<31-1:
		return misfit("container has runAsNonRoot and image has an invalid user id (%d) %s", *image.UID, where)
	}
	return nil
}

// supplementalGroups are the pod's, its fsGroup first, for the sandbox and for every container alike.
func supplementalGroups(pod *corev1.Pod) ([]int64, runtimeapi.SupplementalGroupsPolicy, error) {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil, 0, nil
	}
	var groups []int64
	if sc.FSGroup != nil {
		groups = append(groups, *sc.FSGroup)
	}
	groups = append(groups, sc.SupplementalGroups...)
	if sc.SupplementalGroupsPolicy == nil {
		return groups, 0, nil
	}
	policy, ok := runtimeapi.SupplementalGroupsPolicy_value[string(*sc.SupplementalGroupsPolicy)]
	if !ok {
		return nil, 0, misfit("unsupported supplementalGroupsPolicy: %s", *sc.SupplementalGroupsPolicy)
	}
	return groups, runtimeapi.SupplementalGroupsPolicy(policy), nil
}

func seccomp(profile *corev1.SeccompProfile, in ContainerInput) (*runtimeapi.SecurityProfile, error) {
	kind := corev1.SeccompProfileTypeUnconfined
	if profile != nil {
		kind = profile.Type
	} else if in.SeccompDefault {
		kind = corev1.SeccompProfileTypeRuntimeDefault
	}
	switch kind {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || !filepath.IsLocal(*profile.LocalhostProfile) {
			return nil, misfit("localhostProfile must be a relative path without \"..\" if seccompProfile type is Localhost")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(in.SeccompRoot, *profile.LocalhostProfile),
		}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

// setAppArmor takes the profile from the field or from the annotation that the field replaced. Runtimes older than containerd 1.6
// want it in another form and are not served. A machine without AppArmor runs containers without it, but not one that asks for a
// profile by name: that would be a promise not kept.
func setAppArmor(out *runtimeapi.LinuxContainerSecurityContext, pod *corev1.Pod, c *corev1.Container, profile *corev1.AppArmorProfile, host Host) error {
	if profile == nil {
		profile = appArmorAnnotation(pod, c.Name)
	}
	if profile == nil {
		return nil
	}
	switch profile.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		if host.AppArmor {
			out.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		}
	case corev1.AppArmorProfileTypeUnconfined:
		if host.AppArmor {
			out.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		}
	case corev1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || *profile.LocalhostProfile == "" {
			return misfit("missing localhost apparmor profile name")
		}
		if !host.AppArmor {
			return misfit("cannot enforce AppArmor: AppArmor is not enabled on the host")
		}
		out.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *profile.LocalhostProfile}
	default:
		return misfit("unknown apparmor profile type: %q", profile.Type)
	}
	return nil
}

func appArmorAnnotation(pod *corev1.Pod, container string) *corev1.AppArmorProfile {
	value, ok := pod.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+container]
	if !ok || value == "" {
		return nil
	}
	switch value {
	case corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	}
	if len(value) <= len(corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		return nil
	}
	name := value[len(corev1.DeprecatedAppArmorBetaProfileNamePrefix):]
	return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
}

func capabilities(c *corev1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	out := &runtimeapi.Capability{}
	for _, name := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, string(name))
	}
	for _, name := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, string(name))
	}
	return out
}

func selinuxOptions(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func isTrue(b *bool) bool {
	return b != nil && *b
}
