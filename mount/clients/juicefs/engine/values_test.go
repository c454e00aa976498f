package engine

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	tests := []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"1", time.Second, true}, {"0.5", 500 * time.Millisecond, true}, {"0", 0, true}, {"300ms", 300 * time.Millisecond, true},
		{"1.0s", time.Second, true}, {"2h", 2 * time.Hour, true}, {"1d", 24 * time.Hour, true}, {"1d12h", 36 * time.Hour, true},
		{"", 0, false}, {"-1", 0, false}, {"-5s", 0, false}, {"soon", 0, false}, {"d", 0, false}, {"1e300", 0, false},
	}
	for _, tt := range tests {
		got, err := parseDuration(tt.text)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q is %s (%v), want %s", tt.text, got, err, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	tests := []struct {
		text string
		want uint64
		ok   bool
	}{
		{"300", 300 << 20, true}, {"300M", 300 << 20, true}, {"1.5G", 3 << 29, true}, {"64k", 64 << 10, true}, {"7B", 7, true},
		{"2GiB", 2 << 30, true}, {"0", 0, true}, {"", 0, false}, {"-1", 0, false}, {"G", 0, false}, {"1X", 0, false}, {"9000P", 0, false},
	}
	for _, tt := range tests {
		got, err := parseSize(tt.text, 'M')
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q is %d (%v), want %d", tt.text, got, err, tt.want)
		}
	}
}

func TestNearestOption(t *testing.T) {
	for key, want := range map[string]string{"cachesize": "cache-size", "buffer_size": "buffer-size", "sub-dir": "subdir", "readonly": "read-only", "openncache": "open-cache"} {
		if got := nearest(key); got != want {
			t.Errorf("nearest to %q is %q, want %q", key, got, want)
		}
	}
}
