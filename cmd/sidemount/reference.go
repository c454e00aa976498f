package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newReferenceCommand prints what this program itself knows of docs/reference.md. It is hidden: people read the page.
func newReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "reference",
		Short:  "Print the reference of all commands and flags in Markdown",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeReference(cmd.OutOrStdout(), cmd.Root())
		},
	}
}

// writeReference writes a section for each command below root that does something.
func writeReference(w io.Writer, root *cobra.Command) error {
	for _, cmd := range commands(root) {
		if _, err := fmt.Fprintf(w, "### `%s`\n\n%s.\n", cmd.CommandPath(), strings.TrimSuffix(cmd.Short, ".")); err != nil {
			return err
		}
		if err := writeFlags(w, cmd.LocalFlags()); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// commands are those that can be run, in alphabetical order of their paths.
func commands(root *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Runnable() {
			all = append(all, cmd)
		}
		all = append(all, commands(cmd)...)
	}
	slices.SortFunc(all, func(a, b *cobra.Command) int { return strings.Compare(a.CommandPath(), b.CommandPath()) })
	return all
}

func writeFlags(w io.Writer, flags *pflag.FlagSet) (err error) {
	heading := "\n| flag | default | |\n|---|---|---|\n"
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || err != nil {
			return
		}
		_, err = fmt.Fprintf(w, "%s| `--%s` | %s | %s |\n", heading, f.Name, defaultOf(f), cell(f.Usage))
		heading = ""
	})
	return err
}

// defaultOf is the default in the form in which it is written on a command line.
func defaultOf(f *pflag.Flag) string {
	value := flagText(f)
	if value == "" {
		return ""
	}
	return "`" + value + "`"
}

// flagText is a flag's value as the command line has it: lists and maps without their brackets.
func flagText(f *pflag.Flag) string {
	text := f.Value.String()
	switch f.Value.Type() {
	case "stringSlice", "stringToString":
		return strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	}
	return text
}

// cell keeps a text inside a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "<", `\<`)
}
