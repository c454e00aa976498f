package filesystem

import (
	"fmt"
	"strconv"

	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
)

// The session's values about its engine.
const (
	sidKey  = "juicefs-sid"
	uuidKey = "juicefs-uuid"
)

// Earlier is what an earlier process has left of its engine, as far as the session knows it by now.
func (fs *FileSystem) Earlier() engine.Earlier {
	uuid, _ := fs.options.Session.Get(uuidKey)
	return engine.Earlier{Sid: fs.storedSid(), UUID: string(uuid)}
}

func (fs *FileSystem) storedSid() uint64 {
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

// remember notes what differs from before for the next process.
func (fs *FileSystem) remember(e *engine.Engine, before engine.Earlier) error {
	if e.Sid != before.Sid {
		if err := fs.storeSid(e.Sid); err != nil {
			return err
		}
	}
	if e.Setting.UUID == before.UUID {
		return nil
	}
	if err := fs.options.Session.Put(uuidKey, []byte(e.Setting.UUID)); err != nil {
		return fmt.Errorf("keep the file system's UUID: %w", err)
	}
	return nil
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
