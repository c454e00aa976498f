package mountpoint

import (
	"slices"
	"testing"
)

func TestEntryOfAMount(t *testing.T) {
	const line = `99 22 0:77 /sub /p/a\040b ro,nosuid,nodev shared:9 - fuse.juicefs sidemount:s\0401 rw,user_id=65534
`
	got, err := parseEntries(line, "/p")
	want := []Entry{{Point: "/p/a b", Device: "0:77", Type: "fuse.juicefs", Source: "sidemount:s 1", ReadOnly: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestParse(t *testing.T) {
	const table = `22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:30 / /p rw - tmpfs tmpfs rw
31 30 0:31 / /p/a\040b rw - tmpfs tmpfs rw
32 30 0:32 / /p/a\040b/c\134d rw - tmpfs tmpfs rw
33 22 0:33 / /pp rw - tmpfs tmpfs rw
`
	for dir, want := range map[string][]string{
		"/p":     {`/p/a b/c\d`, "/p/a b", "/p"},
		"/p/a b": {`/p/a b/c\d`, "/p/a b"},
		"/q":     nil,
	} {
		entries, err := parseEntries(table, dir)
		if got := deepestFirst(entries); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", dir, got, err, want)
		}
	}
	entries, err := parseEntries(table, "/")
	if got := deepestFirst(entries); err != nil || len(got) != 5 || got[4] != "/" {
		t.Errorf("/: got %q, %v", got, err)
	}
	if _, err := parseEntries("garbage\n", "/"); err == nil {
		t.Error("want an error for garbage")
	}
}
