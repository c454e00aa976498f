package logs

import "io"

// writer passes records on to a client.
type writer struct {
	options Options
	out     map[string]io.Writer
	// midline says of each stream that its last record did not end a line.
	midline map[string]bool
	// remain is how many bytes may still be written; negative means no limit.
	remain int64
	buf    []byte
}

// newWriter drops the stream whose writer is nil.
func newWriter(o Options, out, err io.Writer) *writer {
	return &writer{options: o, out: map[string]io.Writer{stdout: out, stderr: err}, midline: map[string]bool{}, remain: o.LimitBytes}
}

// write returns errLimit once all bytes are written.
func (w *writer) write(r record) error {
	begins := !w.midline[r.stream]
	w.midline[r.stream] = !r.ends()
	if r.time.Before(w.options.Since) || w.out[r.stream] == nil {
		return nil
	}
	w.buf = w.buf[:0]
	if w.options.Timestamps && begins {
		w.buf = append(r.time.AppendFormat(w.buf, timeFormat), ' ')
	}
	w.buf = append(w.buf, r.text...)
	if w.remain >= 0 && int64(len(w.buf)) > w.remain {
		w.buf = w.buf[:w.remain]
	}
	n, err := w.out[r.stream].Write(w.buf)
	if err != nil {
		return err
	}
	if w.remain < 0 {
		return nil
	}
	if w.remain -= int64(n); w.remain <= 0 {
		return errLimit
	}
	return nil
}
