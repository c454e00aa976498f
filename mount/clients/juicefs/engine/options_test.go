package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/sidemount/sidemount/mount"
)

// mountFlags are the names of the flags of `juicefs mount` 1.3.1, with a value for those that need one: cmd/mount_unix.go mountFlags and fuseFlags,
// cmd/flags.go clientFlags, shareInfoFlags and globalFlags, cmd/main.go handleSysMountArgs and pkg/fuse Serve.
var mountFlags = strings.Fields(`
	f foreground d background no-syslog log=/tmp/log force update-fstab disable-transparent-hugepage
	enable-xattr enable-cap enable-selinux enable-ioctl root-squash=1:1 all-squash=1:1 prefix-internal non-default-permission
	max-fuse-io=1M umask=022
	subdir=a backup-meta=1h backup-skip-trash heartbeat=12s read-only no-bgjob atime-mode=noatime skip-dir-nlink=20 skip-dir-mtime=100ms
	sort-dir fast-statfs
	attr-cache=1 entry-cache=1 dir-entry-cache=1 negative-entry-cache=1 readdir-cache open-cache=1 open-cache-limit=1
	storage=s3 bucket=b storage-class=c get-timeout=60 put-timeout=60 io-retries=10 max-uploads=20 max-stage-write=1000 max-deletes=10
	upload-limit=1 download-limit=1 check-storage
	buffer-size=300 max-readahead=1 prefetch=1 writeback upload-delay=0 upload-hours=0-5 cache-dir=memory cache-mode=0600 cache-size=100
	cache-items=0 free-space-ratio=0.1 cache-partial-only cache-large-write verify-cache-checksum=extend cache-eviction=2-random
	cache-scan-interval=1h cache-expire=0
	metrics=:9567 custom-labels=a:b consul=:8500 no-usage-report
	verbose debug v quiet q trace log-level=info log-id=random no-agent pyroscope=:4040 no-color
	attrcacheto=1 entrycacheto=1 direntrycacheto=1 _netdev rw defaults remount allow_other fsname=a writeback_cache async_dio`)

func TestEveryMountOptionOfJuiceFSIsKnown(t *testing.T) {
	for _, one := range mountFlags {
		_, err := parseOptions([]string{one})
		key, _, _ := strings.Cut(one, "=")
		reason, no := refused[key]
		switch {
		case !no && err != nil:
			t.Errorf("%s: %v, want it to be honoured, or to have no effect", one, err)
		case no && (!errors.Is(err, mount.ErrConfig) || !strings.Contains(err.Error(), reason)):
			t.Errorf("%s: %v, want it to be refused with a reason", one, err)
		}
	}
}

func TestOptionsHaveOneMeaning(t *testing.T) {
	for key := range optionTable {
		if without[key] || refused[key] != "" || aliases[key] != "" {
			t.Errorf("%s is honoured and something else", key)
		}
	}
	for key := range refused {
		if without[key] {
			t.Errorf("%s is refused and without effect", key)
		}
	}
	for key, to := range aliases {
		if optionTable[to] == nil {
			t.Errorf("%s means %s, which is not known", key, to)
		}
	}
}
