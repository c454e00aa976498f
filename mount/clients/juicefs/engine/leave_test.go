package engine

import (
	"context"
	"testing"

	"github.com/juicedata/juicefs/pkg/meta"
)

// A client that ends in order goes on reading requests until its process has ended.
func TestAnEngineThatHasLeftStillAnswers(t *testing.T) {
	for name, keep := range map[string]bool{"for a successor": true, "for good": false} {
		t.Run(name, func(t *testing.T) {
			c, err := Connect(context.Background(), mustParse(t, localVolume(t.TempDir())), Earlier{})
			if err != nil {
				t.Fatal(err)
			}
			e, err := c.Start(Options{MemoryLimit: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			var inode meta.Ino
			var attr meta.Attr
			if errno := e.Meta.Mkdir(meta.Background(), meta.RootInode, "directory", 0o755, 0, 0, &inode, &attr); errno != 0 {
				t.Fatal(errno)
			}
			if err := e.Leave(keep); err != nil {
				t.Fatal(err)
			}
			if errno := e.Meta.GetAttr(meta.Background(), inode, &attr); errno != 0 {
				t.Errorf("after it has left: %v", errno)
			}
			if err := e.Close(keep); err != nil {
				t.Fatal(err)
			}
			if errno := e.Meta.GetAttr(meta.Background(), inode, &attr); errno == 0 {
				t.Error("it answers even when it is closed")
			}
		})
	}
}
