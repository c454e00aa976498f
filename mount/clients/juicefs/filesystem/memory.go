package filesystem

import (
	"errors"
	"fmt"

	"github.com/sidemount/sidemount/mount/client"
)

// The session's memory: the handle table first, then the write log, both on page boundaries.
const (
	tableSize = 1 << 20
	pageSize  = 4096
)

// openMemory lays table and log into the session's memory. A log that cannot be read is emptied: its writes are lost, which
// is said, but the session goes on.
func (fs *FileSystem) openMemory() (*table, *client.WriteLog, error) {
	memory := fs.options.Session.Memory()
	size := fs.options.LogSize / pageSize * pageSize
	if len(memory) < tableSize+size {
		return nil, nil, fmt.Errorf("session memory of %d bytes is too small for a handle table of %d and a write log of %d",
			len(memory), tableSize, size)
	}
	table, err := openTable(memory[:tableSize])
	if err != nil {
		return nil, nil, err
	}
	region := memory[tableSize : tableSize+size]
	log, err := client.OpenWriteLog(region)
	if errors.Is(err, client.ErrLogCorrupt) {
		fs.log.WithError(err).Error("write log is corrupt, unflushed writes of the earlier process are lost")
		log, err = client.ResetWriteLog(region)
	}
	return table, log, err
}
