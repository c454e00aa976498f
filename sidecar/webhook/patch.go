package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch returns what turns one pod into the other, or nil. It names single fields and inserts single elements: the API server may know
// fields of pods that this program does not, and replacing what holds them would drop them.
func patch(from, to *corev1.Pod) ([]byte, error) {
	a, err := generic(from)
	if err != nil {
		return nil, err
	}
	b, err := generic(to)
	if err != nil {
		return nil, err
	}
	ops := diff(nil, "", a, b)
	if len(ops) == 0 {
		return nil, nil
	}
	return json.Marshal(ops)
}

func generic(pod *corev1.Pod) (any, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode the pod: %w", err)
	}
	var v any
	return v, json.Unmarshal(text, &v)
}

func diff(ops []operation, path string, a, b any) []operation {
	if reflect.DeepEqual(a, b) {
		return ops
	}
	switch b := b.(type) {
	case map[string]any:
		if a, ok := a.(map[string]any); ok {
			return diffMap(ops, path, a, b)
		}
	case []any:
		if a, ok := a.([]any); ok {
			return diffList(ops, path, a, b)
		}
	}
	return append(ops, operation{"replace", path, b})
}

func diffMap(ops []operation, path string, a, b map[string]any) []operation {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[key]; !ok {
			ops = append(ops, operation{Op: "remove", Path: path + "/" + escape(key)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		at := path + "/" + escape(key)
		if old, ok := a[key]; ok {
			ops = diff(ops, at, old, b[key])
		} else {
			ops = append(ops, operation{"add", at, b[key]})
		}
	}
	return ops
}

// diffList handles elements that were changed in place, and elements with new names that were inserted among the old ones.
func diffList(ops []operation, path string, a, b []any) []operation {
	if len(a) == len(b) {
		for i := range b {
			ops = diff(ops, path+"/"+strconv.Itoa(i), a[i], b[i])
		}
		return ops
	}
	before := len(ops)
	for i, element := range b {
		at := path + "/" + strconv.Itoa(i)
		if len(a) > 0 && name(a[0]) != "" && name(a[0]) == name(element) {
			ops, a = diff(ops, at, a[0], element), a[1:]
		} else {
			ops = append(ops, operation{"add", at, element})
		}
	}
	if len(a) > 0 {
		return append(ops[:before], operation{"replace", path, b})
	}
	return ops
}

func name(v any) string {
	m, _ := v.(map[string]any)
	s, _ := m["name"].(string)
	return s
}

// escape writes a key as RFC 6901 wants it.
func escape(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }
