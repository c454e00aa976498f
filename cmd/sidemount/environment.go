package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// fromEnvironment sets every flag that is not on the command line from its variable, if that is set: --node-name from
// SIDEMOUNT_NODE_NAME.
func fromEnvironment(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := variableOf(f.Name)
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok || failed != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("variable %s: %w", name, err)
		}
	})
	return failed
}

// variableOf is the environment variable of a flag.
func variableOf(flag string) string {
	return "SIDEMOUNT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
