package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/pflag"
)

const unitName = "sidemount-node.service"

//go:embed sidemount-node.service.tmpl
var unitTemplate string

// unit is a systemd unit with its environment file.
type unit struct {
	unitPath, envPath string
	text, environment string
}

// newUnit describes the node whose flags are set. Flags in files say where the unit goes and are no settings of the node.
func newUnit(o *installOptions, node *nodeOptions, flags, files *pflag.FlagSet) (*unit, error) {
	if err := node.complete(); err != nil {
		return nil, err
	}
	var after []string
	switch socket := strings.TrimPrefix(node.runtimeEndpoint, "unix://"); filepath.Base(socket) {
	case "containerd.sock":
		after = append(after, "containerd.service")
	case "crio.sock":
		after = append(after, "crio.service")
	}
	for _, path := range []string{o.program, o.envFile, node.rootDir} {
		// systemd would take blanks, quotes and specifiers in a unit for something else.
		if strings.ContainsAny(path, " \t\n\"'\\%$") {
			return nil, fmt.Errorf("%q: a path in a unit may have no blank, quote, backslash, %% or $", path)
		}
	}
	parsed, err := template.New(unitName).Parse(unitTemplate)
	if err != nil {
		return nil, fmt.Errorf("read the template of the unit: %w", err)
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, map[string]any{
		"Program": o.program, "EnvFile": o.envFile, "RootDir": node.rootDir, "After": strings.Join(after, " "),
	})
	if err != nil {
		return nil, fmt.Errorf("write the unit: %w", err)
	}
	environment, err := environmentOf(flags, files)
	if err != nil {
		return nil, err
	}
	return &unit{unitPath: o.unitPath(), envPath: o.envFile, text: text.String(), environment: environment}, nil
}

// environmentOf writes the flags that are set as systemd.exec(5)'s EnvironmentFile, in alphabetical order. The names are those that
// fromEnvironment reads.
func environmentOf(flags, files *pflag.FlagSet) (string, error) {
	var lines []string
	var failed error
	flags.Visit(func(f *pflag.Flag) {
		if files.Lookup(f.Name) != nil || f.Name == "help" {
			return
		}
		value := flagText(f)
		if strings.ContainsAny(value, "\n\r\x00") {
			failed = errors.Join(failed, fmt.Errorf("--%s: a setting in a file may have no line break", f.Name))
			return
		}
		lines = append(lines, variableOf(f.Name)+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(value)+"\"\n")
	})
	slices.Sort(lines)
	return "# Flags of sidemount node, each by its environment variable; written by \"sidemount node install\".\n" + strings.Join(lines, ""), failed
}

func (u *unit) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "# %s\n%s\n# %s\n%s", u.unitPath, u.text, u.envPath, u.environment)
	return err
}

// writeChanged writes a file as a whole, unless it has that content already.
func writeChanged(path, content string, mode os.FileMode) (changed bool, err error) {
	if present, err := os.ReadFile(path); err == nil && string(present) == content {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	next, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	defer os.Remove(next.Name())
	_, err = next.WriteString(content)
	err = errors.Join(err, next.Chmod(mode), next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	return true, nil
}

// systemctl runs systemctl and returns what it complains about.
func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
