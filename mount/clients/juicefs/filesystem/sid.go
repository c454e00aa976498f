package filesystem

import (
	"fmt"
	"strconv"
)

// sidKey is the session value that holds the metadata session's number.
const sidKey = "juicefs-sid"

// StoredSid is the metadata session of an earlier process, 0 if there is none.
func (fs *FileSystem) StoredSid() uint64 {
	value, ok := fs.options.Session.Get(sidKey)
	if !ok {
		return 0
	}
	sid, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		fs.log.WithError(err).Warn("stored metadata session is unreadable, making a new one")
		return 0
	}
	return sid
}

func (fs *FileSystem) storeSid(sid uint64) error {
	value := []byte(nil)
	if sid != 0 {
		value = strconv.AppendUint(nil, sid, 10)
	}
	if err := fs.options.Session.Put(sidKey, value); err != nil {
		return fmt.Errorf("keep the metadata session's number: %w", err)
	}
	return nil
}
