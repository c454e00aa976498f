package docs

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// StandIns replace what a reader has to fill in with what there is on the test's cluster.
type StandIns struct {
	// FileSystem is what Secrets say about the file system, by the name that it has on the page.
	FileSystem func(name string) map[string]string
	// Values are merged into the values of the chart, where they win.
	Values map[string]any
}

// Apply returns a file of objects or of the chart's values with the stand-ins in it. What the page has and no stand-in replaces stays.
func (s StandIns) Apply(text string) ([]byte, error) {
	var out bytes.Buffer
	in, to := yaml.NewDecoder(bytes.NewBufferString(text)), yaml.NewEncoder(&out)
	for {
		var document map[string]any
		if err := in.Decode(&document); errors.Is(err, io.EOF) {
			return out.Bytes(), to.Close()
		} else if err != nil {
			return nil, fmt.Errorf("read a block: %w", err)
		}
		s.replace(document)
		if _, object := document["kind"]; !object {
			merge(document, s.Values)
		}
		if err := to.Encode(document); err != nil {
			return nil, fmt.Errorf("write a block: %w", err)
		}
	}
}

// replace goes down to the descriptions of file systems, which are maps with a metaurl.
func (s StandIns) replace(value any) {
	switch value := value.(type) {
	case map[string]any:
		name, named := value["name"].(string)
		if _, ok := value["metaurl"]; ok && named {
			for k := range value {
				delete(value, k)
			}
			for k, v := range s.FileSystem(name) {
				value[k] = v
			}
			return
		}
		for _, v := range value {
			s.replace(v)
		}
	case []any:
		for _, v := range value {
			s.replace(v)
		}
	}
}

// merge puts what is in from into into, key by key.
func merge(into, from map[string]any) {
	for k, v := range from {
		below, both := v.(map[string]any)
		present, ok := into[k].(map[string]any)
		if both && ok {
			merge(present, below)
			continue
		}
		into[k] = v
	}
}

// Namespaces are those that a file's objects are in.
func Namespaces(text string) ([]string, error) {
	var all []string
	in := yaml.NewDecoder(bytes.NewBufferString(text))
	for {
		var object struct {
			Metadata struct{ Namespace string }
		}
		if err := in.Decode(&object); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read a block: %w", err)
		}
		if object.Metadata.Namespace != "" {
			all = append(all, object.Metadata.Namespace)
		}
	}
}
