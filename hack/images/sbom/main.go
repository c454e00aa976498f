// Command sbom writes the software bill of materials of Go programs as an SPDX 2.3 document. It knows what the Go linker has recorded in
// them, which for a static program is all of it but libc.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	name := flag.String("name", "", "name of the image")
	version := flag.String("version", "dev", "version of the image")
	flag.Parse()
	if err := write(os.Stdout, *name, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// document is an SPDX document. The field names are those of the specification: https://spdx.github.io/spdx-spec/v2.3/.
type document struct {
	SPDXVersion   string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	SPDXID        string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []pkg          `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	SPDXID           string      `json:"SPDXID"`
	Name             string      `json:"name"`
	Version          string      `json:"versionInfo"`
	DownloadLocation string      `json:"downloadLocation"`
	FilesAnalyzed    bool        `json:"filesAnalyzed"`
	Checksums        []checksum  `json:"checksums,omitempty"`
	References       []reference `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// write reads the programs and writes the document. It is the same for the same programs: no time of day, no random name.
func write(w io.Writer, name, version string, programs []string) error {
	if name == "" || len(programs) == 0 {
		return errors.New("usage: sbom --name IMAGE [--version VERSION] PROGRAM...")
	}
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: name + "-" + version,
		Creation: creation{Created: "1970-01-01T00:00:00Z", Creators: []string{"Tool: sidemount-sbom"}},
	}
	digest := sha256.New()
	for _, path := range programs {
		if err := d.add(path, version, digest); err != nil {
			return err
		}
	}
	d.Namespace = "https://github.com/sidemount/sidemount/sbom/" + name + "/" + hex.EncodeToString(digest.Sum(nil))
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(d)
}

// add describes a program and the modules that it is linked from; several programs share them.
func (d *document) add(path, version string, digest io.Writer) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read build information of %s: %w", path, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if _, err := digest.Write(sum[:]); err != nil {
		return err
	}
	program := pkg{
		SPDXID: id("Program", filepath.Base(path)), Name: filepath.Base(path), Version: version, DownloadLocation: "NOASSERTION",
		Checksums: []checksum{{"SHA256", hex.EncodeToString(sum[:])}},
	}
	d.Packages = append(d.Packages, program)
	d.relate(d.SPDXID, "DESCRIBES", program.SPDXID)
	modules := append([]*debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}, &info.Main}, info.Deps...)
	for _, m := range modules {
		d.relate(program.SPDXID, "DEPENDS_ON", d.module(m))
	}
	return nil
}

// module adds a module unless it is there, and returns its identifier.
func (d *document) module(m *debug.Module) string {
	if m.Replace != nil {
		m = m.Replace
	}
	version := m.Version
	if version == "" || version == "(devel)" {
		version = "NOASSERTION"
	}
	p := pkg{SPDXID: id("Module", m.Path+"@"+version), Name: m.Path, Version: version, DownloadLocation: "NOASSERTION"}
	if version != "NOASSERTION" {
		p.References = []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + version}}
	}
	if !slices.ContainsFunc(d.Packages, func(other pkg) bool { return other.SPDXID == p.SPDXID }) {
		d.Packages = append(d.Packages, p)
	}
	return p.SPDXID
}

func (d *document) relate(from, kind, to string) {
	d.Relationships = append(d.Relationships, relationship{from, kind, to})
}

// notInID is what an SPDX identifier cannot hold.
var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

func id(kind, name string) string {
	return "SPDXRef-" + kind + "-" + notInID.ReplaceAllString(name, "-")
}
