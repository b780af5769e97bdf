package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the manual pages. It is for those who pack the program, and is not listed.
func manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "man FOLDER", Short: "Write a manual page for each command to a folder", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root.DisableAutoGenTag = true // it has the day, so that no two pages are the same; SOURCE_DATE_EPOCH sets the date of the page
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "passthrough " + version, Manual: "passthrough"}, args[0])
		},
	}
}
