package node

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Object)
		want   string // part of the error; empty means valid
	}{
		"as it is":                  {func(*Object) {}, ""},
		"own label":                 {func(o *Object) { o.Labels = map[string]string{"team": "blue", "example.com/a": "b"} }, ""},
		"kubelet label":             {func(o *Object) { o.Labels = map[string]string{corev1.LabelTopologyZone: "z"} }, ""},
		"kubelet label prefix":      {func(o *Object) { o.Labels = map[string]string{"node.kubernetes.io/x": "y"} }, ""},
		"forbidden role":            {func(o *Object) { o.Labels = map[string]string{"kubernetes.io/role": "agent"} }, "NodeRestriction"},
		"forbidden role name":       {func(o *Object) { o.Labels = map[string]string{"node-role.kubernetes.io/worker": ""} }, "NodeRestriction"},
		"forbidden restriction":     {func(o *Object) { o.Labels = map[string]string{"x.node-restriction.kubernetes.io/a": "b"} }, "NodeRestriction"},
		"forbidden k8s.io":          {func(o *Object) { o.Labels = map[string]string{"x.k8s.io/a": "b"} }, "NodeRestriction"},
		"bad label value":           {func(o *Object) { o.Labels = map[string]string{"a": "b c"} }, `label a="b c"`},
		"bad name":                  {func(o *Object) { o.Name = "No_Name" }, "node name"},
		"no address":                {func(o *Object) { o.Addresses = nil }, "no address"},
		"no version":                {func(o *Object) { o.Version = "" }, "no version"},
		"taint with unknown effect": {func(o *Object) { o.Taints = []corev1.Taint{{Key: "a", Effect: "Sometimes"}} }, `effect "Sometimes"`},
	} {
		t.Run(name, func(t *testing.T) {
			o := testObject("virtual-1")
			tc.change(&o)
			err := o.Validate()
			if tc.want == "" {
				if err != nil {
					t.Errorf("got %v, want valid", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, tc.want)
			}
		})
	}
}

func TestParseTaint(t *testing.T) {
	for text, want := range map[string]corev1.Taint{
		"a=b:NoSchedule":      {Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule},
		"x.io/a:NoExecute":    {Key: "x.io/a", Effect: corev1.TaintEffectNoExecute},
		"a=:PreferNoSchedule": {Key: "a", Effect: corev1.TaintEffectPreferNoSchedule},
	} {
		got, err := ParseTaint(text)
		if err != nil || got != want {
			t.Errorf("ParseTaint(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a", "a=b", "a=b:Never", ":NoSchedule", "a b:NoSchedule"} {
		if _, err := ParseTaint(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseTaint(%q) = %v, want ErrInvalid", text, err)
		}
	}
}
