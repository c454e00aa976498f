package main

import (
	"context"

	"github.com/spf13/cobra"
)

// role makes a command of something that runs until it is told to end: its flags are completed and checked, logging is set up as they say, and it runs.
func role(complete func() error, level, format *string, run func(context.Context) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := complete(); err != nil {
			return err
		}
		ctx, err := setUpLogging(cmd.Context(), *level, *format)
		if err != nil {
			return err
		}
		return run(ctx)
	}
}
