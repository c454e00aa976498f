package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The table of values stands between these lines of the README.
const (
	tableBegin = "<!-- The table is made from values.yaml: go test ./test/chart -run Readme -update -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// withTable returns the README with the table of the values in values.yaml.
func withTable(readme string, values []byte) (string, error) {
	before, rest, ok := strings.Cut(readme, tableBegin)
	if !ok {
		return "", errors.New("the README has no place for the table of values")
	}
	_, after, ok := strings.Cut(rest, tableEnd)
	if !ok {
		return "", errors.New("the README's table of values has no end")
	}
	table, err := valuesTable(values)
	if err != nil {
		return "", err
	}
	return before + tableBegin + table + tableEnd + after, nil
}

// valuesTable is a row for each value that somebody may want to set. A value without a comment above it is an error.
func valuesTable(values []byte) (string, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return "", fmt.Errorf("read values: %w", err)
	}
	var b strings.Builder
	b.WriteString("\n| value | default | |\n|---|---|---|\n")
	if err := writeRows(&b, "", document.Content[0]); err != nil {
		return "", err
	}
	b.WriteString("\n")
	return b.String(), nil
}

// writeRows goes down block mappings; what is written in one line is one value.
func writeRows(b *strings.Builder, prefix string, mapping *yaml.Node) error {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		if value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && len(value.Content) > 0 {
			if err := writeRows(b, name+".", value); err != nil {
				return err
			}
			continue
		}
		row, err := writeRow(name, key.HeadComment, value)
		if err != nil {
			return err
		}
		b.WriteString(row)
	}
	return nil
}

func writeRow(name, comment string, value *yaml.Node) (string, error) {
	// The comment of the file itself is parted from the first key's by an empty line.
	paragraphs := strings.Split(comment, "\n\n")
	comment = strings.TrimSpace(paragraphs[len(paragraphs)-1])
	if comment == "" {
		return "", fmt.Errorf("%s has no comment in values.yaml", name)
	}
	var decoded any
	if err := value.Decode(&decoded); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	text, err := json.Marshal(decoded)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	words := strings.Fields(strings.ReplaceAll("\n"+comment, "\n#", "\n"))
	return fmt.Sprintf("| `%s` | `%s` | %s |\n", name, text, strings.ReplaceAll(strings.Join(words, " "), "|", `\|`)), nil
}
