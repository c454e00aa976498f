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

// patch returns what turns one pod into the other, or nil; raw is the first one as it came. The patch names single fields and inserts single
// elements: the API server may know fields of pods that this program does not, and replacing what holds them would drop them.
func patch(raw []byte, from, to *corev1.Pod) ([]byte, error) {
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("decode the pod: %w", err)
	}
	a, err := generic(from)
	if err != nil {
		return nil, err
	}
	b, err := generic(to)
	if err != nil {
		return nil, err
	}
	ops := diff(nil, "", doc, a, b)
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

// diff describes what turns a into b. doc is what a was decoded from: it may have more fields, and lack such as are empty.
func diff(ops []operation, path string, doc, a, b any) []operation {
	if reflect.DeepEqual(a, b) {
		return ops
	}
	switch b := b.(type) {
	case map[string]any:
		a, isMap := a.(map[string]any)
		if doc, ok := doc.(map[string]any); ok && isMap {
			return diffMap(ops, path, doc, a, b)
		}
	case []any:
		a, isList := a.([]any)
		if doc, ok := doc.([]any); ok && isList && len(doc) == len(a) {
			return diffList(ops, path, doc, a, b)
		}
	}
	return append(ops, operation{"replace", path, b})
}

func diffMap(ops []operation, path string, doc, a, b map[string]any) []operation {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		_, keep := b[key]
		if _, there := doc[key]; there && !keep {
			ops = append(ops, operation{Op: "remove", Path: path + "/" + escape(key)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		at := path + "/" + escape(key)
		origin, there := doc[key]
		switch old, known := a[key]; {
		case known && there:
			ops = diff(ops, at, origin, old, b[key])
		case !known || !reflect.DeepEqual(old, b[key]):
			ops = append(ops, operation{"add", at, b[key]})
		}
	}
	return ops
}

// diffList handles elements that were changed in place, and elements with new names that were inserted among the old ones.
func diffList(ops []operation, path string, doc, a, b []any) []operation {
	if len(a) == len(b) {
		for i := range b {
			ops = diff(ops, path+"/"+strconv.Itoa(i), doc[i], a[i], b[i])
		}
		return ops
	}
	before := len(ops)
	for i, element := range b {
		at := path + "/" + strconv.Itoa(i)
		if len(a) > 0 && name(a[0]) != "" && name(a[0]) == name(element) {
			ops, doc, a = diff(ops, at, doc[0], a[0], element), doc[1:], a[1:]
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
