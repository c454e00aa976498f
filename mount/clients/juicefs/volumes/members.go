package volumes

import (
	"fmt"
	"sort"
	"strings"
	"syscall"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// memberAttr is followed by a volume's ID.
const memberAttr = "trusted.sidemount.volume."

// memberIDs are the IDs that a directory carries, sorted.
func (s *Service) memberIDs(ctx meta.Context, dir meta.Ino) ([]string, error) {
	var list []byte
	switch st := s.m.ListXattr(ctx, dir, &list); st {
	case 0:
	case syscall.ENOENT, meta.ENOATTR:
		return nil, nil
	default:
		return nil, failed(ctx, "list members", st)
	}
	var ids []string
	for _, name := range strings.Split(string(list), "\x00") {
		if id, ok := strings.CutPrefix(name, memberAttr); ok && admin.CheckID(id) == nil {
			ids = append(ids, id)
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// members are the records of the volumes that lie in a directory, which is at the path, or anywhere if that is empty. An ID whose
// record is gone, or going, or of another path, does not count: a worker died before it took the ID off.
func (s *Service) members(ctx meta.Context, l layout, dir meta.Ino, path string) ([]record, error) {
	ids, err := s.memberIDs(ctx, dir)
	if err != nil {
		return nil, err
	}
	var all []record
	for _, id := range ids {
		r, err := s.readRecord(ctx, l.volumes, id)
		if err != nil {
			return nil, err
		}
		if r != nil && r.State != deleting && (path == "" || r.Path == path) {
			all = append(all, *r)
		}
	}
	return all, nil
}

// isMember tells whether a directory is the volume's.
func (s *Service) isMember(ctx meta.Context, dir meta.Ino, id string) (bool, error) {
	var value []byte
	switch st := s.m.GetXattr(ctx, dir, memberAttr+id, &value); st {
	case 0:
		return true, nil
	case meta.ENOATTR, syscall.ENOENT:
		return false, nil
	default:
		return false, failed(ctx, "read member", st)
	}
}

func (s *Service) addMember(ctx meta.Context, dir meta.Ino, id string) error {
	if st := s.m.SetXattr(ctx, dir, memberAttr+id, []byte("1"), 0); st != 0 {
		return failed(ctx, "write member", st)
	}
	return nil
}

func (s *Service) removeMember(ctx meta.Context, dir meta.Ino, id string) error {
	if st := s.m.RemoveXattr(ctx, dir, memberAttr+id); st != 0 && st != meta.ENOATTR && st != syscall.ENOENT {
		return failed(ctx, "remove member", st)
	}
	return nil
}

// onlyMember makes a directory the volume's alone: a copy has the attributes of what it was copied from.
func (s *Service) onlyMember(ctx meta.Context, dir meta.Ino, id string) error {
	if err := s.addMember(ctx, dir, id); err != nil {
		return err
	}
	ids, err := s.memberIDs(ctx, dir)
	if err != nil {
		return err
	}
	for _, other := range ids {
		if other == id {
			continue
		}
		if err := s.removeMember(ctx, dir, other); err != nil {
			return err
		}
	}
	return nil
}

// checkNested refuses a path that volumes lie within.
func (s *Service) checkNested(ctx meta.Context, l layout, path string) error {
	all, err := s.records(ctx, l.volumes)
	if err != nil {
		return err
	}
	for _, r := range all {
		if strings.HasPrefix(r.Path, path+"/") {
			return fmt.Errorf("%w: volume %s at %q lies within path %q", admin.ErrInUse, r.ID, r.Path, path)
		}
	}
	return nil
}
