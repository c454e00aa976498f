package env

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// objects is an Objects in memory; err is the answer for everything if it is set.
type objects struct {
	secrets    map[string]map[string][]byte
	configMaps map[string]map[string]string
	err        error
}

func (o objects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	if o.err != nil {
		return nil, o.err
	}
	data, ok := o.secrets[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}, nil
}

func (o objects) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	if o.err != nil {
		return nil, o.err
	}
	data, ok := o.configMaps[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}, nil
}

func services(t *testing.T, list ...*corev1.Service) corelisters.ServiceLister {
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, s := range list {
		if err := indexer.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return corelisters.NewServiceLister(indexer)
}

func service(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: ports},
	}
}

func ptr[T any](v T) *T { return &v }

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "web", UID: "u-1",
			Labels:      map[string]string{"app": "web", "example.com/tier": "front"},
			Annotations: map[string]string{"note": "two\nlines", "Upper": "x"},
		},
		Spec: corev1.PodSpec{
			NodeName: "virtual", ServiceAccountName: "robot", EnableServiceLinks: ptr(false),
			Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("32Mi"), "hugepages-2Mi": resource.MustParse("4Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1250m"), "hugepages-2Mi": resource.MustParse("4Mi")},
			}}},
			InitContainers: []corev1.Container{{Name: "init"}},
		},
	}
}

func plain(vars []Var) []string {
	var out []string
	for _, v := range vars {
		out = append(out, v.Name+"="+v.Value)
	}
	return out
}

func TestResolve(t *testing.T) {
	store := objects{
		secrets:    map[string]map[string][]byte{"ns/creds": {"user": []byte("ann"), "token": []byte("s3")}, "ns/binary": {"key": {0xff, 0xfe}}},
		configMaps: map[string]map[string]string{"ns/conf": {"b": "2", "a": "1"}, "ns/other": {"a": "9"}},
	}
	from := func(cm string, prefix string) corev1.EnvFromSource {
		return corev1.EnvFromSource{Prefix: prefix, ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: cm}}}
	}
	key := func(name, cm, key string, optional *bool) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: cm}, Key: key, Optional: optional}}}
	}
	secretKey := func(name, secret, key string, optional *bool) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key, Optional: optional}}}
	}
	for name, tc := range map[string]struct {
		container corev1.Container
		want      []string
		err       string
	}{
		"references expand in order and unknown ones stay": {
			container: corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)$$(A)"}, {Name: "C", Value: "$(B)"}}},
			want:      []string{"A=1", "B=1$(C)$(A)", "C=1$(C)$(A)"},
		},
		"env replaces envFrom, later envFrom the earlier": {
			container: corev1.Container{EnvFrom: []corev1.EnvFromSource{from("conf", ""), from("other", "")}, Env: []corev1.EnvVar{{Name: "b", Value: "own $(b)"}}},
			want:      []string{"a=9", "b=own 2"},
		},
		"envFrom with a prefix": {
			container: corev1.Container{EnvFrom: []corev1.EnvFromSource{from("conf", "P_")}},
			want:      []string{"P_a=1", "P_b=2"},
		},
		"envFrom of a secret": {
			container: corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "creds"}}}}},
			want:      []string{"token=s3", "user=ann"},
		},
		"optional envFrom that is missing": {
			container: corev1.Container{EnvFrom: []corev1.EnvFromSource{
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Optional: ptr(true)}},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Optional: ptr(true)}},
			}},
		},
		"mandatory secret that is missing":      {container: corev1.Container{Env: []corev1.EnvVar{secretKey("X", "no", "k", nil)}}, err: `secret "no" not found`},
		"mandatory config map that is missing":  {container: corev1.Container{EnvFrom: []corev1.EnvFromSource{from("no", "")}}, err: `configmap "no" not found`},
		"key of a secret that is missing":       {container: corev1.Container{Env: []corev1.EnvVar{secretKey("X", "creds", "k", nil)}}, err: `couldn't find key k in Secret ns/creds`},
		"key of a config map that is missing":   {container: corev1.Container{Env: []corev1.EnvVar{key("X", "conf", "k", nil)}}, err: `couldn't find key k in ConfigMap ns/conf`},
		"optional key that is missing":          {container: corev1.Container{Env: []corev1.EnvVar{key("X", "conf", "k", ptr(true)), secretKey("Y", "creds", "k", ptr(true))}}},
		"keys":                                  {container: corev1.Container{Env: []corev1.EnvVar{key("X", "conf", "a", nil), secretKey("Y", "creds", "user", nil)}}, want: []string{"X=1", "Y=ann"}},
		"a value that is no text gives no text": {container: corev1.Container{Env: []corev1.EnvVar{secretKey("X", "binary", "key", nil)}}, err: "environment variable X: key key of Secret ns/binary is not text: unusable value"},
		"an empty value":                        {container: corev1.Container{Env: []corev1.EnvVar{{Name: "E"}}}, want: []string{"E="}},
	} {
		t.Run(name, func(t *testing.T) {
			vars, err := Resolve(t.Context(), testPod(), &tc.container, Sources{Objects: store})
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Fatalf("got error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := plain(vars); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMissingObjectsAreTyped(t *testing.T) {
	c := corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}}}}}
	_, err := Resolve(t.Context(), testPod(), &c, Sources{Objects: objects{}})
	var missing *MissingError
	if !errors.As(err, &missing) || missing.Kind != "Secret" || missing.Namespace != "ns" || missing.Name != "no" {
		t.Errorf("got %#v", err)
	}
	if !apierrors.IsNotFound(err) {
		t.Errorf("%v is no NotFound", err)
	}
}

func TestOptionalDoesNotHideOtherErrors(t *testing.T) {
	c := corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "x"}, Optional: ptr(true)}}}}
	down := errors.New("connection refused")
	if _, err := Resolve(t.Context(), testPod(), &c, Sources{Objects: objects{err: down}}); !errors.Is(err, down) {
		t.Errorf("got %v, want %v", err, down)
	}
}

func TestServiceVariables(t *testing.T) {
	lister := services(t,
		service("default", "kubernetes", "10.0.0.1", corev1.ServicePort{Name: "https", Port: 443, Protocol: "TCP"}),
		service("default", "elsewhere", "10.0.0.9", corev1.ServicePort{Port: 1}),
		service("ns", "my-db", "fd00::1", corev1.ServicePort{Port: 5432, Protocol: "UDP"}),
		service("ns", "headless", "None", corev1.ServicePort{Port: 1}),
		service("ns", "external", ""),
	)
	kubernetes := []string{
		"KUBERNETES_PORT=tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1",
		"KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_SERVICE_HOST=10.0.0.1",
		"KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
	database := []string{
		"MY_DB_PORT=udp://[fd00::1]:5432", "MY_DB_PORT_5432_UDP=udp://[fd00::1]:5432", "MY_DB_PORT_5432_UDP_ADDR=fd00::1",
		"MY_DB_PORT_5432_UDP_PORT=5432", "MY_DB_PORT_5432_UDP_PROTO=udp", "MY_DB_SERVICE_HOST=fd00::1", "MY_DB_SERVICE_PORT=5432",
	}
	own := corev1.Container{Env: []corev1.EnvVar{{Name: "KUBERNETES_PORT", Value: "mine at $(KUBERNETES_SERVICE_HOST)"}}}
	for name, tc := range map[string]struct {
		links     *bool
		container corev1.Container
		want      []string
	}{
		"links off":               {ptr(false), corev1.Container{}, kubernetes},
		"links on":                {ptr(true), corev1.Container{}, append(slices.Clone(kubernetes), database...)},
		"links default to on":     {nil, corev1.Container{}, append(slices.Clone(kubernetes), database...)},
		"a container's own stays": {ptr(false), own, append([]string{"KUBERNETES_PORT=mine at 10.0.0.1"}, kubernetes[1:]...)},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			pod.Spec.EnableServiceLinks = tc.links
			vars, err := Resolve(t.Context(), pod, &tc.container, Sources{Objects: objects{}, Services: lister})
			if err != nil {
				t.Fatal(err)
			}
			if got := plain(vars); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestField(t *testing.T) {
	addrs := Addresses{Pod: []string{"10.1.0.2", "fd00::2"}, Host: []string{"192.0.2.1", "fd01::1"}}
	for path, want := range map[string]string{
		"metadata.name":                       "web",
		"metadata.namespace":                  "ns",
		"metadata.uid":                        "u-1",
		"metadata.labels":                     "app=\"web\"\nexample.com/tier=\"front\"",
		"metadata.annotations":                "Upper=\"x\"\nnote=\"two\\nlines\"",
		"metadata.labels['example.com/tier']": "front",
		"metadata.labels['none']":             "",
		"metadata.annotations['note']":        "two\nlines",
		"metadata.annotations['Upper']":       "x",
		"spec.nodeName":                       "virtual",
		"spec.serviceAccountName":             "robot",
		"status.podIP":                        "10.1.0.2",
		"status.podIPs":                       "10.1.0.2,fd00::2",
		"status.hostIP":                       "192.0.2.1",
		"status.hostIPs":                      "192.0.2.1,fd01::1",
	} {
		got, err := Field(testPod(), &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}, addrs)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"spec.restartPolicy", "metadata.labels['a b']", "metadata.name['x']", "metadata", "['x']", ""} {
		if got, err := Field(testPod(), &corev1.ObjectFieldSelector{FieldPath: path}, addrs); err == nil {
			t.Errorf("%s: got %q, want an error", path, got)
		}
	}
	if _, err := Field(testPod(), &corev1.ObjectFieldSelector{APIVersion: "v2", FieldPath: "metadata.name"}, addrs); !errors.Is(err, ErrUnsupported) {
		t.Errorf("version v2: got %v", err)
	}
	if _, err := MetadataField(testPod(), &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("podIP in a volume: got %v", err)
	}
}

func TestResource(t *testing.T) {
	allocatable := corev1.ResourceList{"cpu": resource.MustParse("3500m"), "memory": resource.MustParse("2Gi"), "ephemeral-storage": resource.MustParse("10Gi")}
	for name, tc := range map[string]struct {
		ref  corev1.ResourceFieldSelector
		pod  corev1.ResourceList
		want string
	}{
		"limit rounds up":             {ref: corev1.ResourceFieldSelector{Resource: "limits.cpu"}, want: "2"},
		"limit in milli":              {ref: corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}, want: "1250"},
		"request":                     {ref: corev1.ResourceFieldSelector{Resource: "requests.memory", Divisor: resource.MustParse("1Mi")}, want: "32"},
		"no request is 0":             {ref: corev1.ResourceFieldSelector{Resource: "requests.ephemeral-storage"}, want: "0"},
		"no limit is the node's":      {ref: corev1.ResourceFieldSelector{Resource: "limits.memory"}, want: "2147483648"},
		"no limit is the pod's first": {ref: corev1.ResourceFieldSelector{Resource: "limits.memory"}, pod: corev1.ResourceList{"memory": resource.MustParse("1Gi")}, want: "1073741824"},
		"huge pages":                  {ref: corev1.ResourceFieldSelector{Resource: "limits.hugepages-2Mi", Divisor: resource.MustParse("2Mi")}, want: "2"},
		"no huge pages are none":      {ref: corev1.ResourceFieldSelector{ContainerName: "init", Resource: "limits.hugepages-2Mi"}, want: "0"},
		"another container":           {ref: corev1.ResourceFieldSelector{ContainerName: "init", Resource: "limits.cpu"}, want: "4"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod()
			if tc.pod != nil {
				pod.Spec.Resources = &corev1.ResourceRequirements{Limits: tc.pod}
			}
			got, err := Resource(pod, &pod.Spec.Containers[0], &tc.ref, allocatable)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	pod := testPod()
	for _, ref := range []corev1.ResourceFieldSelector{
		{Resource: "limits.gpu"}, {Resource: "cpu"}, {Resource: "caps.cpu"}, {Resource: "limits.cpu", ContainerName: "no"},
		{Resource: "limits.cpu", Divisor: resource.MustParse("-1")},
	} {
		if got, err := Resource(pod, &pod.Spec.Containers[0], &ref, allocatable); err == nil {
			t.Errorf("%v: got %q, want an error", ref, got)
		}
	}
	if _, err := Resource(pod, nil, &corev1.ResourceFieldSelector{Resource: "limits.cpu"}, allocatable); err == nil {
		t.Error("no container: want an error")
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "a", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"$(A)":         "a",
		"x$(A)y$(A)":   "xaya",
		"$(B)":         "$(A)",
		"$(EMPTY)":     "",
		"$(NO)":        "$(NO)",
		"$$(A)":        "$(A)",
		"$$$(A)":       "$a",
		"$$$$(A)":      "$$(A)",
		"$A":           "$A",
		"$":            "$",
		"a$":           "a$",
		"$$":           "$",
		"$(A":          "$(A",
		"$(":           "$(",
		"$()":          "$()",
		"$(A)$(":       "a$(",
		"$é(A)":        "$é(A)",
		"$(A $(A)":     "$(A $(A)",
		"100%$)$(A)$)": "100%$)a$)",
	} {
		if got := Expand(in, func(name string) string { return valueOrReference(name, values) }); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCommand(t *testing.T) {
	c := &corev1.Container{Command: []string{"sh", "-c", "echo $(X) $(NO) $$(X)"}}
	command, args := Command(c, []Var{{"X", "1"}})
	if want := []string{"sh", "-c", "echo 1 $(NO) $(X)"}; !slices.Equal(command, want) {
		t.Errorf("got %q, want %q", command, want)
	}
	if args != nil {
		t.Errorf("got args %q, want none", args)
	}
}

func TestSubPath(t *testing.T) {
	vars := []Var{{"POD", "web-0"}, {"EMPTY", ""}}
	for expr, want := range map[string]string{"logs/$(POD)": "logs/web-0", "$$(POD)": "$(POD)"} {
		if got, err := SubPath(corev1.VolumeMount{SubPathExpr: expr}, vars); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", expr, got, err, want)
		}
	}
	if got, err := SubPath(corev1.VolumeMount{SubPath: "$(POD)"}, vars); err != nil || got != "$(POD)" {
		t.Errorf("subPath: got %q, %v", got, err)
	}
	_, err := SubPath(corev1.VolumeMount{Name: "v", SubPathExpr: "$(NO)/$(EMPTY)/$(NO)"}, vars)
	if want := `expand subPathExpr of volumeMount "v": missing value for EMPTY, NO`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFileKey(t *testing.T) {
	open := func(_ context.Context, volume, path string) (io.ReadCloser, error) {
		if volume != "shared" || path != "env" {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return io.NopCloser(strings.NewReader("A='1'\nB='two\nlines' # c\n")), nil
	}
	variable := func(path, key string, optional bool) *corev1.Container {
		return &corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{
			VolumeName: "shared", Path: path, Key: key, Optional: &optional}}}}}
	}
	for name, tc := range map[string]struct {
		container *corev1.Container
		want, err string
	}{
		"a key":                {container: variable("env", "B", false), want: "X=two\nlines"},
		"a missing key":        {container: variable("env", "C", false), err: `environment variable key "C" not found in file "env" of volume "shared"`},
		"a missing file":       {container: variable("no", "A", false), err: "environment variable X: file no of volume shared: open no: file does not exist"},
		"an optional key":      {container: variable("env", "C", true)},
		"an optional file":     {container: variable("no", "C", true)},
		"an optional that is":  {container: variable("env", "A", true), want: "X=1"},
		"an empty path's file": {container: variable("", "A", false), err: "environment variable X: file  of volume shared: open : file does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			vars, err := Resolve(t.Context(), testPod(), tc.container, Sources{Objects: objects{}, OpenFile: open})
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Fatalf("got %v, want %s", err, tc.err)
				}
				return
			}
			if got := strings.Join(plain(vars), ","); err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestParseFile(t *testing.T) {
	const text = "# comment\n\n  LEAD='x'\nEMPTY=''\nSPACE= 'v'\nMULTI='a\n#b\n'\t# end\nQ='a\"$(b)\\n'\r\nLAST='z'"
	for key, want := range map[string]string{"LEAD": "x", "EMPTY": "", "SPACE": "", "MULTI": "a\n#b\n", "Q": `a"$(b)\n`, "LAST": "z"} {
		if got, found, err := parseFile(text, key); err != nil || !found || got != want {
			t.Errorf("%s: got %q, %v, %v, want %q", key, got, found, err, want)
		}
	}
	if _, found, err := parseFile(text, "NO"); found || err != nil {
		t.Errorf("NO: got %v, %v", found, err)
	}
	for text, want := range map[string]string{
		"A":              "line 1: missing '=': unusable value",
		"\n='x'":         "line 2: bad name before '=': unusable value",
		"A ='x'":         "line 1: bad name before '=': unusable value",
		"A=":             "line 1: value is not in single quotes: unusable value",
		"A=secret":       "line 1: value is not in single quotes: unusable value",
		"B='x\ny'\nA='x": "line 3: unclosed single quote: unusable value",
		"A='x' y":        "line 1: text after the closing quote: unusable value",
	} {
		if _, _, err := parseFile(text, "A"); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	for _, s := range []string{"A='1'", "A='1\n2' # x\nB='3'", "A=", "#", "A= 'x'", "a'b='v'", "=''"} {
		f.Add(s, "A")
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		value, found, err := parseFile(text, key)
		if err != nil && found {
			t.Error("found with an error")
		}
		if strings.Contains(value, "'") || !strings.Contains(text, value) {
			t.Errorf("value %q is not a quoted part of the text", value)
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$(A)", "$$(A)", "$", "$(", "a$(A)b$$c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Expanding to the reference itself changes nothing but the escapes.
		got := Expand(s, func(name string) string { return "$(" + name + ")" })
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("%q became %q", s, got)
		}
		if len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
	})
}
