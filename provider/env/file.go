package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// maxFile bounds what is read of an environment file, in bytes: a container wrote it.
const maxFile = 1 << 20

func (r *resolver) addFileKey(ctx context.Context, name string, ref *corev1.FileKeySelector) error {
	optional := ref.Optional != nil && *ref.Optional
	value, found, err := r.fileKey(ctx, ref)
	switch {
	case errors.Is(err, fs.ErrNotExist) && optional:
		return nil
	case err != nil:
		return fmt.Errorf("environment variable %s: file %s of volume %s: %w", name, ref.Path, ref.VolumeName, err)
	case found:
		r.put(name, value)
		return nil
	case optional:
		return nil
	}
	return fmt.Errorf("environment variable key %q not found in file %q of volume %q", ref.Key, ref.Path, ref.VolumeName)
}

func (r *resolver) fileKey(ctx context.Context, ref *corev1.FileKeySelector) (value string, found bool, err error) {
	if r.src.OpenFile == nil {
		return "", false, ErrUnsupported
	}
	f, err := r.src.OpenFile(ctx, ref.VolumeName, ref.Path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", false, err
	}
	if len(data) > maxFile {
		return "", false, fmt.Errorf("more than %d bytes: %w", maxFile, ErrValue)
	}
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		return "", false, fmt.Errorf("not a text: %w", ErrValue)
	}
	return parseFile(string(data), ref.Key)
}

// parseFile returns the value of key in an environment file: lines of NAME='value', where the value is everything between
// the quotes, new lines too; '#' begins a comment (core/v1 FileKeySelector: a strict subset of the shell's syntax).
// Lines after the key are not looked at. Errors give the line and never its content.
func parseFile(text, key string) (value string, found bool, err error) {
	for line := 1; text != ""; {
		head, rest, _ := strings.Cut(text, "\n")
		head = strings.TrimLeft(strings.TrimSuffix(head, "\r"), " \t")
		if head == "" || head[0] == '#' {
			text, line = rest, line+1
			continue
		}
		name, after, ok := strings.Cut(head, "=")
		switch {
		case !ok:
			return "", false, fmt.Errorf("line %d: missing '=': %w", line, ErrValue)
		case name == "" || strings.TrimRight(name, " \t") != name:
			return "", false, fmt.Errorf("line %d: bad name before '=': %w", line, ErrValue)
		case after != "" && (after[0] == ' ' || after[0] == '\t'):
			// As in a shell, this is an assignment of nothing.
			if name == key {
				return "", true, nil
			}
			text, line = rest, line+1
			continue
		case after == "" || after[0] != '\'':
			return "", false, fmt.Errorf("line %d: value is not in single quotes: %w", line, ErrValue)
		}
		value, tail, ok := strings.Cut(text[strings.Index(text, "='")+2:], "'")
		if !ok {
			return "", false, fmt.Errorf("line %d: unclosed single quote: %w", line, ErrValue)
		}
		comment, next, _ := strings.Cut(tail, "\n")
		if comment = strings.TrimLeft(strings.TrimSuffix(comment, "\r"), " \t"); comment != "" && comment[0] != '#' {
			return "", false, fmt.Errorf("line %d: text after the closing quote: %w", line, ErrValue)
		}
		if name == key {
			return value, true, nil
		}
		text, line = next, line+1+strings.Count(value, "\n")
	}
	return "", false, nil
}
