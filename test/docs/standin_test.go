package docs

import (
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestStandInsReplaceWhatAReaderFillsIn(t *testing.T) {
	s := StandIns{
		FileSystem: func(name string) map[string]string {
			return map[string]string{"name": name, "metaurl": "redis://10.0.0.1/1"}
		},
		Values: map[string]any{"log": map[string]any{"level": "debug"}},
	}
	text, err := s.Apply("log: {format: json}\nstorageClasses:\n- name: juicefs\n  secret: {data: {name: a, metaurl: 'redis://…', access-key: '…'}}\n" +
		"---\nkind: Secret\nmetadata: {namespace: demo}\nstringData: {name: b, metaurl: 'redis://…'}\n")
	if err != nil {
		t.Fatal(err)
	}
	var first, want map[string]any
	if err := yaml.Unmarshal(text, &first); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte("log: {format: json, level: debug}\nstorageClasses:\n- name: juicefs\n  secret: {data: {name: a, metaurl: redis://10.0.0.1/1}}\n"), &want); err != nil {
		t.Fatal(err)
	}
	got, _ := yaml.Marshal(first)
	expected, _ := yaml.Marshal(want)
	if string(got) != string(expected) {
		t.Errorf("got\n%s\nwant\n%s", got, expected)
	}
	namespaces, err := Namespaces(string(text))
	if err != nil || !slices.Equal(namespaces, []string{"demo"}) {
		t.Errorf("namespaces %v, %v", namespaces, err)
	}
}
