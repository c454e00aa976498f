package docs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func pages(t *testing.T) []*Page {
	t.Helper()
	all, err := Pages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

func TestLinksResolve(t *testing.T) {
	for _, p := range pages(t) {
		for _, l := range p.Links() {
			if problem := followLink(p, l.Text); problem != "" {
				t.Errorf("%s:%d: %s: %s", p.Path, l.Line, l.Text, problem)
			}
		}
	}
}

// followLink says what is wrong with a link; those to other sites are not followed.
func followLink(p *Page, target string) string {
	if strings.HasPrefix(target, "https://") {
		return ""
	}
	path, anchor, _ := strings.Cut(target, "#")
	to := p
	if path != "" {
		path = filepath.Join(filepath.Dir(p.Path), path)
		if !exists(path) {
			return "there is no " + path
		}
		if anchor == "" {
			return ""
		}
		var err error
		if to, err = ReadPage(path); err != nil {
			return err.Error()
		}
	}
	if !to.Anchors()[anchor] {
		return to.Path + " has no such heading"
	}
	return ""
}

// inTree is a path of the repository, as prose names it; a package may stand for its directory.
var inTree = regexp.MustCompile(`^(\./)?(charts|cmd|csi|docs|examples|hack|mount|node|preflight|provider|sidecar|test)/[\w./-]*\w/?$`)

func TestPathsInProseExist(t *testing.T) {
	for _, p := range pages(t) {
		for _, c := range p.Code() {
			if inTree.MatchString(c.Text) && !exists(c.Text) && !exists(filepath.Join(filepath.Dir(p.Path), c.Text)) {
				t.Errorf("%s:%d: there is no %s", p.Path, c.Line, c.Text)
			}
		}
	}
}

var makeTarget = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)

func TestTargetsOfMakeExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range makeTarget.FindAllSubmatch(text, -1) {
		targets = append(targets, string(m[1]))
	}
	mention := regexp.MustCompile(`(?:^|[\s;&])make ([a-z][a-z0-9-]*)`)
	for _, p := range pages(t) {
		code := p.Code()
		for _, b := range p.Blocks {
			if b.Language == "sh" {
				code = append(code, Mention{b.Line, b.Text})
			}
		}
		for _, c := range code {
			for _, m := range mention.FindAllStringSubmatch(c.Text, -1) {
				if !slices.Contains(targets, m[1]) {
					t.Errorf("%s:%d: there is no target %s", p.Path, c.Line, m[1])
				}
			}
		}
	}
}

// imageTag is the tag of one of our images, whatever the registry.
var imageTag = regexp.MustCompile(`sidemount/(?:sidemount|juicefs-client|csi-sidecars|\$image):([\w.]+)`)

// Who copies a command gets the images that the chart asks for.
func TestImagesHaveTheChartsVersion(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "charts", "sidemount", "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var chart struct {
		AppVersion string `yaml:"appVersion"`
	}
	if err := yaml.Unmarshal(text, &chart); err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			for _, m := range imageTag.FindAllStringSubmatch(b.Text, -1) {
				named++
				if m[1] != chart.AppVersion {
					t.Errorf("%s:%d: %s; the chart's version is %s", p.Path, b.Line, m[0], chart.AppVersion)
				}
			}
		}
	}
	if named == 0 {
		t.Error("no block names an image")
	}
}

// languages are what a block can be: commands that are run, objects or files, and what nobody runs.
var languages = []string{"sh", "yaml", "go", "text", ""}

func TestBlocksAreWhatTheySay(t *testing.T) {
	commands := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if !slices.Contains(languages, b.Language) {
				t.Errorf("%s:%d: a block of language %q; want one of %q", p.Path, b.Line, b.Language, languages)
			}
			reason, told := b.Options["notest"]
			if told && len(strings.Fields(reason)) < 2 {
				t.Errorf("%s:%d: notest=%q is no reason", p.Path, b.Line, reason)
			}
			switch b.Language {
			case "sh":
				commands++
				if strings.Contains(b.Text, "$ ") {
					t.Errorf("%s:%d: a prompt cannot be run", p.Path, b.Line)
				}
			case "yaml":
				if err := wellFormed(b.Text); err != nil {
					t.Errorf("%s:%d: %v", p.Path, b.Line, err)
				}
			}
		}
	}
	if commands == 0 {
		t.Error("no page has commands")
	}
}

func wellFormed(text string) error {
	d := yaml.NewDecoder(bytes.NewBufferString(text))
	for {
		var any map[string]any
		if err := d.Decode(&any); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestPageIsParsed(t *testing.T) {
	p, err := ParsePage("docs/x.md", "# A `b`: c\n\nSee [here](#a-b-c) and `[no](link)`.\n\n  ```sh notest=\"needs a disk\" file=\"x\"\n  one\n    two\n  ```\n\n```\nthree\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Blocks) != 2 || p.Blocks[0].Text != "one\n  two\n" || p.Blocks[0].Line != 5 || p.Blocks[0].Options["notest"] != "needs a disk" ||
		p.Blocks[0].Options["file"] != "x" || p.Blocks[1].Language != "" {
		t.Errorf("blocks: %+v", p.Blocks)
	}
	if links := p.Links(); len(links) != 1 || links[0] != (Mention{3, "#a-b-c"}) || followLink(p, links[0].Text) != "" {
		t.Errorf("links: %v, anchors: %v", links, p.Anchors())
	}
	if followLink(p, "#other") == "" || followLink(p, "nowhere.md") == "" || followLink(p, "../README.md") != "" {
		t.Error("links are not followed as they should be")
	}
	for _, broken := range []string{"```sh\n", "```sh notest\n```\n"} {
		if _, err := ParsePage("x", broken); err == nil {
			t.Errorf("%q was accepted", broken)
		}
	}
}
