package engine

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// options are JuiceFS mount options, in JuiceFS's own spelling, units and defaults. Where a default differs it says why.
type options struct {
	readOnly bool
	subdir   string // directory that is served as the root; created if it is missing. Default: the whole file system

	attrCache, entryCache, dirEntryCache time.Duration // how long the kernel may trust what it has. Default 1 s
	negativeEntryCache                   time.Duration // how long it may trust that a name does not exist. Default 0
	readdirCache                         bool
	openCache                            time.Duration
	openCacheLimit                       uint64

	enableXattr, enableCap, enableSELinux, enableIoctl bool
	prefixInternal                                     bool   // the pseudo files' names begin with .jfs
	umask                                              uint16 // of new files and directories, beside the program's own. Default noUmask

	ioRetries    int // Default 10
	maxDeletes   int // Default 10
	heartbeat    time.Duration
	noBGJob      bool
	atimeMode    string
	skipDirNlink int
	skipDirMtime time.Duration
	sortDir      bool
	fastStatfs   bool

	storage, bucket, storageClass string // override the setting for this client, as in JuiceFS
	getTimeout, putTimeout        time.Duration
	maxUploads, maxStageWrite     int
	uploadLimit, downloadLimit    int64 // Mbit/s; 0 takes the setting's

	bufferSize    uint64 // bytes; 0 derives it from the memory limit, at most 300 MiB
	maxReadahead  uint64 // bytes; 0 is 8 blocks
	prefetch      int
	writeback     bool
	uploadDelay   time.Duration
	uploadHours   string
	cacheDir      string // Default "memory": a sidecar's root is read-only and its disk is not its own
	cacheMode     uint32
	cacheSize     uint64 // bytes; 0 with cacheSizeSet turns the cache off; else 100 GiB on disk, in memory derived from the limit
	cacheSizeSet  bool
	cacheItems    int64
	freeSpace     float64
	cachePartial  bool
	cacheLarge    bool
	cacheChecksum string
	cacheEviction string
	cacheScan     time.Duration
	cacheExpire   time.Duration
}

// noUmask is vfs's word for "only the program's own".
const noUmask = 0xffff

func defaultOptions() options {
	return options{
		attrCache: time.Second, entryCache: time.Second, dirEntryCache: time.Second, openCacheLimit: 10000,
		ioRetries: 10, maxDeletes: 10, heartbeat: 12 * time.Second, atimeMode: "noatime", skipDirNlink: 20,
		skipDirMtime: 100 * time.Millisecond, getTimeout: time.Minute, putTimeout: time.Minute, maxUploads: 20,
		maxStageWrite: 1000, prefetch: 1, cacheDir: "memory", cacheMode: 0o600, freeSpace: 0.1, cacheChecksum: "extend",
		cacheEviction: "2-random", cacheScan: time.Hour, umask: noUmask,
	}
}

// option applies one mount option.
type option func(o *options, value string) error

// optionTable holds every option that is understood.
var optionTable = map[string]option{
	"ro": flag(func(o *options) *bool { return &o.readOnly }), "read-only": flag(func(o *options) *bool { return &o.readOnly }),
	"subdir": text(func(o *options) *string { return &o.subdir }),

	"attr-cache":           duration(func(o *options) *time.Duration { return &o.attrCache }),
	"entry-cache":          duration(func(o *options) *time.Duration { return &o.entryCache }),
	"dir-entry-cache":      duration(func(o *options) *time.Duration { return &o.dirEntryCache }),
	"negative-entry-cache": duration(func(o *options) *time.Duration { return &o.negativeEntryCache }),
	"readdir-cache":        flag(func(o *options) *bool { return &o.readdirCache }),
	"open-cache":           duration(func(o *options) *time.Duration { return &o.openCache }),
	"open-cache-limit":     number(func(o *options) *uint64 { return &o.openCacheLimit }),

	"enable-xattr":    flag(func(o *options) *bool { return &o.enableXattr }),
	"enable-cap":      flag(func(o *options) *bool { return &o.enableCap }),
	"enable-selinux":  flag(func(o *options) *bool { return &o.enableSELinux }),
	"enable-ioctl":    flag(func(o *options) *bool { return &o.enableIoctl }),
	"prefix-internal": flag(func(o *options) *bool { return &o.prefixInternal }),
	"umask":           setUmask,

	"io-retries":     number(func(o *options) *int { return &o.ioRetries }),
	"max-deletes":    number(func(o *options) *int { return &o.maxDeletes }),
	"heartbeat":      duration(func(o *options) *time.Duration { return &o.heartbeat }),
	"no-bgjob":       flag(func(o *options) *bool { return &o.noBGJob }),
	"atime-mode":     oneOf(func(o *options) *string { return &o.atimeMode }, "noatime", "relatime", "strictatime"),
	"skip-dir-nlink": number(func(o *options) *int { return &o.skipDirNlink }),
	"skip-dir-mtime": duration(func(o *options) *time.Duration { return &o.skipDirMtime }),
	"sort-dir":       flag(func(o *options) *bool { return &o.sortDir }),
	"fast-statfs":    flag(func(o *options) *bool { return &o.fastStatfs }),

	"storage":         text(func(o *options) *string { return &o.storage }),
	"bucket":          text(func(o *options) *string { return &o.bucket }),
	"storage-class":   text(func(o *options) *string { return &o.storageClass }),
	"get-timeout":     duration(func(o *options) *time.Duration { return &o.getTimeout }),
	"put-timeout":     duration(func(o *options) *time.Duration { return &o.putTimeout }),
	"max-uploads":     number(func(o *options) *int { return &o.maxUploads }),
	"max-stage-write": number(func(o *options) *int { return &o.maxStageWrite }),
	"upload-limit":    mbps(func(o *options) *int64 { return &o.uploadLimit }),
	"download-limit":  mbps(func(o *options) *int64 { return &o.downloadLimit }),

	"buffer-size":           size('M', func(o *options) *uint64 { return &o.bufferSize }),
	"max-readahead":         size('M', func(o *options) *uint64 { return &o.maxReadahead }),
	"prefetch":              number(func(o *options) *int { return &o.prefetch }),
	"writeback":             flag(func(o *options) *bool { return &o.writeback }),
	"upload-delay":          duration(func(o *options) *time.Duration { return &o.uploadDelay }),
	"upload-hours":          text(func(o *options) *string { return &o.uploadHours }),
	"cache-dir":             setCacheDir,
	"cache-mode":            setCacheMode,
	"cache-size":            setCacheSize,
	"cache-items":           number(func(o *options) *int64 { return &o.cacheItems }),
	"free-space-ratio":      setFreeSpace,
	"cache-partial-only":    flag(func(o *options) *bool { return &o.cachePartial }),
	"cache-large-write":     flag(func(o *options) *bool { return &o.cacheLarge }),
	"verify-cache-checksum": oneOf(func(o *options) *string { return &o.cacheChecksum }, "none", "full", "shrink", "extend"),
	"cache-eviction":        oneOf(func(o *options) *string { return &o.cacheEviction }, "none", "2-random"),
	"cache-scan-interval":   duration(func(o *options) *time.Duration { return &o.cacheScan }),
	"cache-expire":          duration(func(o *options) *time.Duration { return &o.cacheExpire }),
}

// aliases are the names that mount.juicefs, which the JuiceFS CSI driver calls, has kept from earlier versions.
var aliases = map[string]string{"attrcacheto": "attr-cache", "entrycacheto": "entry-cache", "direntrycacheto": "dir-entry-cache"}

// without are options of JuiceFS that have no meaning here and are accepted so that manifests need no change: the mount is the
// broker's, with the size of requests and the caching of writes in the kernel (there is none), logging and supervision are the agent's,
// metadata is not backed up by mounts, and nothing is reported home.
var without = map[string]bool{
	"allow_other": true, "allow_root": true, "default_permissions": true, "nonempty": true, "rw": true, "exec": true, "dev": true,
	"suid": true, "nodev": true, "nosuid": true, "_netdev": true, "defaults": true, "remount": true, "async": true, "dirsync": true, "atime": true,
	"noatime": true, "relatime": true, "strictatime": true, "diratime": true, "nodiratime": true, "fsname": true, "max_read": true, "async_dio": true,
	"max-fuse-io": true, "writeback_cache": true, "disable-transparent-hugepage": true, "background": true, "d": true, "foreground": true, "f": true,
	"log": true, "log-level": true, "log-id": true, "no-syslog": true, "no-color": true, "verbose": true, "v": true, "debug": true, "trace": true,
	"quiet": true, "q": true,
	"update-fstab": true, "force": true, "metrics": true, "consul": true, "custom-labels": true, "no-usage-report": true,
	"no-agent": true, "pyroscope": true, "backup-meta": true, "backup-skip-trash": true, "check-storage": true, "access-log": true,
	"hide-internal": true,
}

// refused are options that ask for something that is not there, with the reason and the cure. Going on without it would show other files, or let
// others at them.
var refused = map[string]string{
	"root-squash":            squash,
	"all-squash":             squash,
	"non-default-permission": "the kernel checks permissions here",
	"noexec":                 "the mount allows execution; set it where a program must not be run by other means",
	"sync":                   "a write is stored by fsync and close; open files with O_SYNC",
}

const squash = "the kernel checks permissions here by a process's own user, and files belong to who made them; " +
	"give the pod another user by its securityContext (runAsUser, runAsGroup, supplementalGroups)"

// parseOptions reads mount options, each "key" or "key=value" or several of them with commas. Later ones win.
func parseOptions(list []string) (options, error) {
	o := defaultOptions()
	for _, item := range list {
		for _, one := range strings.Split(item, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(one), "=")
			if to, ok := aliases[key]; ok {
				key = to
			}
			if key == "" || without[key] {
				continue
			}
			if reason, ok := refused[key]; ok {
				return o, fmt.Errorf("%w: mount option %q: %s", mount.ErrConfig, key, reason)
			}
			apply, ok := optionTable[key]
			if !ok {
				return o, fmt.Errorf("%w: unknown mount option %q; the nearest known one is %q", mount.ErrConfig, key, nearest(key))
			}
			if err := apply(&o, value); err != nil {
				return o, fmt.Errorf("%w: mount option %q: %w", mount.ErrConfig, key, err)
			}
		}
	}
	return o, nil
}

func flag(field func(*options) *bool) option {
	return func(o *options, value string) error {
		if value == "" {
			*field(o) = true
			return nil
		}
		v, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*field(o) = v
		return nil
	}
}

func text(field func(*options) *string) option {
	return func(o *options, value string) error {
		if value == "" {
			return errNoValue
		}
		*field(o) = value
		return nil
	}
}

func oneOf(field func(*options) *string, allowed ...string) option {
	return func(o *options, value string) error {
		for _, a := range allowed {
			if value == a {
				*field(o) = value
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(allowed, ", "))
	}
}

func number[T int | int64 | uint64](field func(*options) *T) option {
	return func(o *options, value string) error {
		v, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is not a number from 0 to %d", value, uint64(1)<<31-1)
		}
		*field(o) = T(v)
		return nil
	}
}

func duration(field func(*options) *time.Duration) option {
	return func(o *options, value string) (err error) {
		*field(o), err = parseDuration(value)
		return err
	}
}

func size(unit byte, field func(*options) *uint64) option {
	return func(o *options, value string) (err error) {
		*field(o), err = parseSize(value, unit)
		return err
	}
}

func mbps(field func(*options) *int64) option {
	return func(o *options, value string) (err error) {
		*field(o), err = parseMbps(value)
		return err
	}
}

func setCacheDir(o *options, value string) error {
	if value == "" {
		return errNoValue
	}
	for _, dir := range strings.Split(value, ":") {
		if value != "memory" && !strings.HasPrefix(dir, "/") {
			return fmt.Errorf("%q is neither \"memory\" nor a list of absolute paths", value)
		}
	}
	o.cacheDir = value
	return nil
}

func setCacheMode(o *options, value string) error {
	v, err := strconv.ParseUint(value, 8, 12)
	if err != nil {
		return fmt.Errorf("%q is not an octal file mode", value)
	}
	o.cacheMode = uint32(v)
	return nil
}

func setUmask(o *options, value string) error {
	v, err := strconv.ParseUint(value, 8, 12)
	if err != nil {
		return fmt.Errorf("%q is not an octal umask", value)
	}
	o.umask = uint16(v)
	return nil
}

func setCacheSize(o *options, value string) (err error) {
	o.cacheSize, err = parseSize(value, 'M')
	o.cacheSizeSet = true
	return err
}

func setFreeSpace(o *options, value string) error {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || v < 0 || v > 1 {
		return fmt.Errorf("%q is not a ratio from 0 to 1", value)
	}
	o.freeSpace = v
	return nil
}

// Features are optional request types that the mount options turn on.
type Features struct {
	// Xattr serves extended attributes. Default false, as in JuiceFS: without it writes are faster.
	Xattr bool
	// Ioctl serves chattr and lsattr. Default false.
	Ioctl bool
}

// Features returns what the mount options ask for. Access control lists, SELinux and capabilities are extended attributes.
func (s *Spec) Features() Features {
	o := s.options
	return Features{Xattr: o.enableXattr || o.enableCap || o.enableSELinux, Ioctl: o.enableIoctl}
}
