package logs

import (
	"bytes"
	"errors"
	"time"
)

const (
	stdout = "stdout"
	stderr = "stderr"

	tagPartial = 'P'
	newline    = '\n'
)

// timeFormat is what a client sees: RFC 3339 with all nine digits, so that times of one length sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

var errMalformed = errors.New("malformed log record")

// record is a line of a log file.
type record struct {
	time   time.Time
	stream string
	// text ends with a newline if the record ends a line of the container.
	text []byte
}

// ends reports whether the record ends a line of the container.
func (r record) ends() bool {
	return len(r.text) > 0 && r.text[len(r.text)-1] == newline
}

// parse takes a line of the file, with its newline, apart. The record's text is part of line.
func parse(line []byte) (record, error) {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return record{}, errMalformed
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return record{}, errMalformed
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return record{}, errMalformed
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(tags) == 0 {
		return record{}, errMalformed
	}
	r := record{time: at, text: text}
	switch string(stream) {
	case stdout:
		r.stream = stdout
	case stderr:
		r.stream = stderr
	default:
		return record{}, errMalformed
	}
	if partial(tags) {
		r.text = bytes.TrimSuffix(text, []byte{newline})
	}
	return r, nil
}

// partial looks at the first of the tags, which colons separate; there may be more of them in the future.
func partial(tags []byte) bool {
	first, _, _ := bytes.Cut(tags, []byte{':'})
	return len(first) == 1 && first[0] == tagPartial
}
