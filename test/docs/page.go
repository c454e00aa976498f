package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// root is the repository, seen from this package.
const root = "../.."

// Page is a Markdown file.
type Page struct {
	// Path is relative to the repository.
	Path string
	// Prose are the lines outside of code blocks by their numbers; those of code blocks are empty.
	Prose []string
	// Blocks are the code blocks with a fence, in their order.
	Blocks []Block
}

// Block is a code block.
type Block struct {
	// Line is the number of its fence's line.
	Line int
	// Language is the first word of the fence, Options the rest.
	Language string
	Options  map[string]string
	Text     string
}

// option is a word behind the language: name="value".
var option = regexp.MustCompile(`^\s*([a-z]+)="([^"]*)"`)

// ReadPage reads a page.
func ReadPage(path string) (*Page, error) {
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	return ParsePage(path, string(content))
}

// ParsePage reads Markdown. It knows fences of three backticks, which are all that the pages use.
func ParsePage(path, content string) (*Page, error) {
	p := &Page{Path: path}
	var open *Block
	var indent string
	for i, line := range strings.Split(content, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimLeft(line, " "), "```")
		switch {
		case isFence && open == nil:
			indent = line[:len(line)-len(fence)-3]
			b, err := parseFence(fence)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
			}
			b.Line = i + 1
			open = &b
		case isFence && strings.TrimSpace(fence) == "":
			p.Blocks = append(p.Blocks, *open)
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		default:
			p.Prose = append(p.Prose, line)
			continue
		}
		p.Prose = append(p.Prose, "")
	}
	if open != nil {
		return nil, fmt.Errorf("%s:%d: the block has no end", path, open.Line)
	}
	return p, nil
}

func parseFence(info string) (Block, error) {
	b := Block{Options: map[string]string{}}
	b.Language, info, _ = strings.Cut(strings.TrimSpace(info), " ")
	for strings.TrimSpace(info) != "" {
		m := option.FindStringSubmatch(info)
		if m == nil {
			return b, fmt.Errorf("cannot read %q behind the block's language: want name=\"value\"", info)
		}
		b.Options[m[1]] = m[2]
		info = info[len(m[0]):]
	}
	return b, nil
}

var (
	heading   = regexp.MustCompile(`^#{1,6} +(.*)$`)
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Anchors are the headings as GitHub makes them the targets of links.
func (p *Page) Anchors() map[string]bool {
	anchors := map[string]bool{}
	for _, line := range p.Prose {
		if m := heading.FindStringSubmatch(line); m != nil {
			slug := notInSlug.ReplaceAllString(strings.ToLower(strings.ReplaceAll(m[1], "`", "")), "")
			anchors[strings.ReplaceAll(strings.TrimSpace(slug), " ", "-")] = true
		}
	}
	return anchors
}

// Mention is something that a line mentions.
type Mention struct {
	Line int
	Text string
}

// Links are the targets of links.
func (p *Page) Links() []Mention {
	return p.find(link, func(s string) string { return codeSpan.ReplaceAllString(s, "") })
}

// Code are the pieces of code in the prose.
func (p *Page) Code() []Mention { return p.find(codeSpan, func(s string) string { return s }) }

func (p *Page) find(what *regexp.Regexp, prepare func(string) string) []Mention {
	var found []Mention
	for i, line := range p.Prose {
		for _, m := range what.FindAllStringSubmatch(prepare(line), -1) {
			found = append(found, Mention{i + 1, m[1]})
		}
	}
	return found
}

// Pages are all pages of the repository for people.
func Pages() ([]*Page, error) {
	paths := []string{"README.md", "CHANGELOG.md", "charts/sidemount/README.md", "hack/cluster/README.md"}
	in, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, path := range in {
		paths = append(paths, filepath.Join("docs", filepath.Base(path)))
	}
	var pages []*Page
	for _, path := range paths {
		p, err := ReadPage(path)
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}
