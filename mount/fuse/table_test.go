package fuse

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseTable(t *testing.T) {
	got, err := parseTable(strings.NewReader(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
165 144 0:46 / /pods/a\040b\134c rw,nosuid,nodev,relatime - fuse.juicefs sidemount:s-1 rw,user_id=65534
no separator here
1 2 0:x / /bad rw - fuse x rw
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Target: "/mnt2", Type: "ext3", Source: "/dev/root", Device: 0},
		{Target: `/pods/a b\c`, Type: "fuse.juicefs", Source: "sidemount:s-1", Device: 46},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFindDoesNotTakeOtherMounts(t *testing.T) {
	if _, err := Find("/proc"); err != ErrNotMounted {
		t.Errorf("got %v for /proc, want ErrNotMounted", err)
	}
	if _, err := Find("/no/such/place"); err != ErrNotMounted {
		t.Errorf("got %v, want ErrNotMounted", err)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add("165 144 0:46 / /a\\040b rw - fuse.juicefs s rw\n")
	f.Add("\\\\04 - \\")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseTable(strings.NewReader(s)); err != nil && !strings.Contains(err.Error(), "token too long") {
			t.Fatal(err)
		}
	})
}
