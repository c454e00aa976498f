package sidecar

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func audited(t *testing.T, change func(*corev1.Pod)) error {
	t.Helper()
	pod, mounts := prepared(t)
	g := testGuest()
	out, err := Inject(pod, mounts, InjectOptions{Guest: g})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(out)
	}
	return g.Audit(out, mounts, func(pem string) bool { return pem == g.CA })
}

func TestAuditAcceptsWhatOthersAdd(t *testing.T) {
	broker := func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] }
	for name, change := range map[string]func(*corev1.Pod){
		"nothing": nil,
		"a token in every container": func(p *corev1.Pod) {
			for i := range p.Spec.InitContainers {
				c := &p.Spec.InitContainers[i]
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"})
				c.Env = append(c.Env, corev1.EnvVar{Name: "CLOUD_ROLE", Value: "x"})
			}
		},
		"a mesh's container first": func(p *corev1.Pod) {
			p.Spec.InitContainers = append([]corev1.Container{{Name: "mesh", Image: "mesh"}}, p.Spec.InitContainers...)
		},
		"a version":  func(p *corev1.Pod) { broker(p).Image = "ghcr.io/sidemount/sidemount:v0.2.0@sha256:abc" },
		"an address": func(p *corev1.Pod) { broker(p).Command[7] = "10.96.0.99:443" },
		"resolver options": func(p *corev1.Pod) {
			p.Spec.DNSPolicy, p.Spec.DNSConfig = corev1.DNSDefault, &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots"}}}
		},
		"a cache dir": func(p *corev1.Pod) { p.Spec.InitContainers[1].VolumeMounts[2].MountPath = "/var/cache" },
	} {
		t.Run(name, func(t *testing.T) {
			if err := audited(t, change); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAuditRefuses(t *testing.T) {
	broker := func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] }
	client := func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[1] }
	app := func(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }
	for name, change := range map[string]func(*corev1.Pod){
		"another image of the broker":   func(p *corev1.Pod) { broker(p).Image = "evil.example/sidemount:v0.1.0" },
		"another image of the client":   func(p *corev1.Pod) { client(p).Image = "evil" },
		"another client":                func(p *corev1.Pod) { client(p).Command[3] = "/bin/sh" },
		"another command of the broker": func(p *corev1.Pod) { broker(p).Command[3] = "evil.example" },
		"arguments":                     func(p *corev1.Pod) { client(p).Args = []string{"-c"} },
		"a hook":                        func(p *corev1.Pod) { broker(p).Lifecycle = &corev1.Lifecycle{} },
		"another authority":             func(p *corev1.Pod) { broker(p).Env[0].Value = "evil" },
		"no authority":                  func(p *corev1.Pod) { broker(p).Env = nil },
		"two authorities": func(p *corev1.Pod) {
			broker(p).Env = append(broker(p).Env, corev1.EnvVar{Name: GuestCA, Value: "evil"})
		},
		"a library":                     func(p *corev1.Pod) { client(p).Env = []corev1.EnvVar{{Name: "LD_PRELOAD", Value: "/x"}} },
		"a foreign environment":         func(p *corev1.Pod) { client(p).EnvFrom = []corev1.EnvFromSource{{}} },
		"a mount over the program":      func(p *corev1.Pod) { add(client(p), "x", "/usr/local/bin") },
		"a mount over a link to ours":   func(p *corev1.Pod) { add(client(p), "x", "/var/run/sidemount/bin") },
		"a mount over the agent":        func(p *corev1.Pod) { client(p).VolumeMounts[0].Name = "x" },
		"a mount over everything":       func(p *corev1.Pod) { add(client(p), "x", "/") },
		"a session of another volume":   func(p *corev1.Pod) { client(p).VolumeMounts[1].SubPath = "sessions/other" },
		"an application with the token": func(p *corev1.Pod) { add(app(p), tokenVolume, "/t") },
		"an application with sockets":   func(p *corev1.Pod) { add(app(p), runVolume, "/t") },
		"an application with the agent": func(p *corev1.Pod) { add(app(p), agentVolume, "/t") },
		"another volume with the token": func(p *corev1.Pod) {
			v := *p.Spec.Volumes[len(p.Spec.Volumes)-2].DeepCopy()
			v.Name = "mine"
			p.Spec.Volumes = append(p.Spec.Volumes, v)
			add(app(p), "mine", "/t")
		},
		"a debugger with sockets": func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", VolumeMounts: []corev1.VolumeMount{{Name: runVolume, MountPath: "/t"}},
			}}}
		},
		"an agent from a claim": func(p *corev1.Pod) { become(p, agentVolume) },
		"sockets in a claim":    func(p *corev1.Pod) { become(p, runVolume) },
		"mounts in a claim":     func(p *corev1.Pod) { become(p, mountsVolume) },
		"no client":             func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			if err := audited(t, change); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// namings are changes by which a pod's author would be the client's server.
func namings(client func(*corev1.Pod) *corev1.Container) map[string]func(*corev1.Pod) {
	all := map[string]func(*corev1.Pod){
		"a host's alias": func(p *corev1.Pod) {
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"redis.storage"}}}
		},
		"no DNS of the cluster":    func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSNone },
		"a name server of its own": func(p *corev1.Pod) { p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"127.0.0.1"}} },
		"domains of its own":       func(p *corev1.Pod) { p.Spec.DNSConfig = &corev1.PodDNSConfig{Searches: []string{"evil.example"}} },
	}
	for _, name := range []string{"HTTPS_PROXY", "http_proxy", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "GODEBUG"} {
		all["variable "+name] = func(p *corev1.Pod) { client(p).Env = append(client(p).Env, corev1.EnvVar{Name: name, Value: "x"}) }
	}
	return all
}

func TestAuditRefusesServersOfThePodsAuthor(t *testing.T) {
	for name, change := range namings(func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[1] }) {
		t.Run(name, func(t *testing.T) {
			if err := audited(t, change); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPodsThatNameServersGetNoSidecars(t *testing.T) {
	pod, mounts := prepared(t)
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"redis.storage"}}}
	for name, o := range map[string]InjectOptions{"with a broker of its own": {Guest: testGuest()}, "with a driver": {Driver: DefaultDriver}} {
		_, err := Inject(pod, mounts, o)
		var e *Error
		if !errors.As(err, &e) || e.Reason != ReasonPodUnsupported || e.Cure == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func add(c *corev1.Container, volume, at string) {
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: at})
}

// become makes a volume a claim that other pods may use too.
func become(p *corev1.Pod, volume string) {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == volume {
			p.Spec.Volumes[i].VolumeSource = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}
		}
	}
}
