package chart

import (
	"maps"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/test/lab"
)

// judge is one of the chart's policies as an API server has compiled it. Which requests come to it, by resource and namespace, is the API server's affair.
type judge struct {
	validator validating.Validator
	namespace *corev1.Namespace
}

// newJudge takes a policy from what the chart renders, for pods in a namespace with these labels.
func newJudge(t *testing.T, name string, labels map[string]string) judge {
	t.Helper()
	manifests, err := template(t, "sidemount", source, "--namespace", "sidemount", "--values", "testdata/sidecars.values.yaml")
	if err != nil {
		t.Fatal(manifests)
	}
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		var p admissionregistrationv1.ValidatingAdmissionPolicy
		if err := yaml.Unmarshal([]byte(document), &p.TypeMeta); err != nil || p.Kind != "ValidatingAdmissionPolicy" {
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(document), &p); err != nil {
			t.Fatal(err)
		}
		if p.Name == name {
			return judge{compile(t, &p), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: labels}}}
		}
	}
	t.Fatalf("the chart has no policy %s", name)
	return judge{}
}

// compile does what an API server does with a policy.
func compile(t *testing.T, p *admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	given := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	for _, v := range p.Spec.Variables {
		if r := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, given, environment.NewExpressions); r.Error != nil {
			t.Fatalf("variable %s: %v", v.Name, r.Error)
		}
	}
	var conditions, validations []cel.ExpressionAccessor
	for i := range p.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i]))
	}
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message})
	}
	matcher := matchconditions.NewMatcher(compiler.CompileCondition(conditions, given, environment.NewExpressions), p.Spec.FailurePolicy, "policy", "validate", p.Name)
	none := compiler.CompileCondition(nil, given, environment.NewExpressions)
	return validating.NewValidator(compiler.CompileCondition(validations, given, environment.NewExpressions), matcher, none, none, p.Spec.FailurePolicy, nil)
}

// denies returns what the policy says against the creation of a pod, "" if nothing.
func (j judge) denies(t *testing.T, who user.Info, pod *corev1.Pod) string {
	t.Helper()
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	request := admission.NewAttributesRecord(pod, nil, kind, j.namespace.Name, pod.Name, resource, "", admission.Create, &metav1.CreateOptions{}, false, who)
	result := j.validator.Validate(t.Context(), resource, &admission.VersionedAttributes{Attributes: request, VersionedObject: pod, VersionedKind: kind},
		nil, j.namespace, celconfig.RuntimeCELCostBudget, nil)
	var said []string
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			t.Errorf("the policy cannot be evaluated: %s", d.Message)
		}
		if d.Action == validating.ActionDeny {
			said = append(said, d.Message)
		}
	}
	return strings.Join(said, "\n")
}

func TestANodesPolicyKnowsAMountPod(t *testing.T) {
	j := newJudge(t, "sidemount-node", nil)
	on := func(node string) user.Info {
		return &user.DefaultInfo{Name: "system:serviceaccount:sidemount:sidemount-node", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {node}}}
	}
	if said := j.denies(t, on(lab.OrdinaryNode), mountPod("sidemount")); said != "" {
		t.Errorf("an honest Mount Pod: %s", said)
	}
	bare := mountPod("sidemount")
	bare.Spec.Volumes, bare.Spec.ServiceAccountName, bare.Spec.Containers[0].Env = nil, "", nil
	if said := j.denies(t, on(lab.OrdinaryNode), bare); said != "" {
		t.Errorf("one without volumes and variables: %s", said)
	}
	if said := j.denies(t, on(lab.OtherOrdinaryNode), mountPod("sidemount")); !strings.Contains(said, "of its own node only") {
		t.Errorf("another node's: %q", said)
	}
	for pod, says := range thefts("sidemount") {
		// What the API server makes of the old field before policies see the pod.
		if pod.Spec.ServiceAccountName == "" {
			pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
		}
		if said := j.denies(t, on(lab.OrdinaryNode), pod); !strings.Contains(said, says) {
			t.Errorf("got %q, want it to say %q", said, says)
		}
		if said := j.denies(t, &user.DefaultInfo{Name: "admin"}, pod); said != "" {
			t.Errorf("it says to others: %s", said)
		}
	}
}

func TestThePolicyOfInjectionDemandsIt(t *testing.T) {
	claim := corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}
	always := corev1.ContainerRestartPolicyAlways
	for _, c := range []struct {
		name, injection     string
		labels, annotations map[string]string
		change              func(*corev1.PodSpec)
		says                string
	}{
		{name: "nobody asks"},
		{name: "enabled only", injection: "enabled"},
		{name: "required", injection: "required", says: "has not got them"},
		{name: "required and reviewed", injection: "required", annotations: map[string]string{"sidemount.io/reviewed": "true"}},
		{name: "another annotation", injection: "required", annotations: map[string]string{"a": "true"}, says: "has not got them"},
		{name: "required and not wanted", injection: "required", labels: map[string]string{"sidemount.io/inject": "false"}},
		{name: "required, by the node", injection: "required", labels: map[string]string{"sidemount.io/inject": "node"}},
		{name: "required, another label", injection: "required", labels: map[string]string{"a": "b"}, says: "has not got them"},
		{name: "asks", labels: map[string]string{"sidemount.io/inject": "true"}, says: "has not got them"},
		{name: "asks and is reviewed", labels: map[string]string{"sidemount.io/inject": "true"}, annotations: map[string]string{"sidemount.io/reviewed": "true"}},
		{name: "required, no claims", injection: "required", change: func(p *corev1.PodSpec) { p.Volumes = nil }},
		{name: "required, for a virtual node", injection: "required", change: func(p *corev1.PodSpec) {
			p.NodeSelector = map[string]string{"sidemount.io/serverless": "true"}
		}},
		{name: "injected", injection: "required", change: func(p *corev1.PodSpec) {
			p.InitContainers = []corev1.Container{{Name: "sidemount", RestartPolicy: &always}, {Name: "sidemount-data", RestartPolicy: &always}, {Name: "own"}}
		}},
		{name: "robbed", injection: "required", says: "has removed restartPolicy", change: func(p *corev1.PodSpec) {
			p.InitContainers = []corev1.Container{{Name: "sidemount", RestartPolicy: &always}, {Name: "sidemount-data"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace := map[string]string{"kubernetes.io/metadata.name": "shop"}
			if c.injection != "" {
				maps.Copy(namespace, map[string]string{"sidemount.io/injection": c.injection})
			}
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: c.labels, Annotations: c.annotations},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}, Volumes: []corev1.Volume{claim}},
			}
			if c.change != nil {
				c.change(&pod.Spec)
			}
			said := newJudge(t, "sidemount-webhook", namespace).denies(t, &user.DefaultInfo{Name: "somebody"}, pod)
			if (said == "") != (c.says == "") || !strings.Contains(said, c.says) {
				t.Errorf("got %q, want it to say %q", said, c.says)
			}
		})
	}
}
