// Package docs holds the documentation to the truth: its links and paths resolve, its reference names what the code has, and each of its
// command blocks is run on a real cluster. It says nothing about whether the text is good.
//
// A block of commands has the language sh, and is run by bash with -euo pipefail; all blocks of a page are run in their order, in one working directory.
// One that cannot be run on a test's cluster says why: ```sh notest="needs systemd"; one that makes a cluster itself is run before there is another: ```sh cluster="none".
// A block of YAML is a file if it has a name, ```yaml file="values.yaml". Otherwise it holds objects that the API server has to accept, or values of the chart. What a
// reader has to fill in, file systems that is, is replaced by what there is (StandIns).
package docs
