package node

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ParseLogOptions reads the query of a log request, with the conversions of the API: a flag counts as set unless its value
// is 0 or false, and "tail" is an older spelling of "tailLines".
func ParseLogOptions(query url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{
		Container:  query.Get("container"),
		Follow:     isSet(query, "follow"),
		Previous:   isSet(query, "previous"),
		Timestamps: isSet(query, "timestamps"),
	}
	var err error
	if o.TailLines, err = numberOf(query, "tailLines"); err != nil {
		return nil, err
	}
	if o.LimitBytes, err = numberOf(query, "limitBytes"); err != nil {
		return nil, err
	}
	if o.SinceSeconds, err = numberOf(query, "sinceSeconds"); err != nil {
		return nil, err
	}
	if text := query.Get("sinceTime"); text != "" {
		var since metav1.Time
		if err := since.UnmarshalQueryParameter(text); err != nil {
			return nil, fmt.Errorf("parse sinceTime: %w", err)
		}
		o.SinceTime = &since
	}
	if values, ok := query["stream"]; ok && len(values) > 0 {
		o.Stream = &values[0]
	}
	return o, applyTail(o, query.Get("tail"))
}

func applyTail(o *corev1.PodLogOptions, tail string) error {
	switch tail {
	case "":
		return nil
	case "all":
		o.TailLines = nil
		return nil
	}
	lines, err := strconv.ParseInt(tail, 10, 64)
	if err != nil {
		return fmt.Errorf("parse tail: %w", err)
	}
	o.TailLines = &lines
	return nil
}

func isSet(query url.Values, key string) bool {
	values, ok := query[key]
	return ok && len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}

func numberOf(query url.Values, key string) (*int64, error) {
	values := query[key]
	if len(values) == 0 {
		return nil, nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", key, err)
	}
	return &n, nil
}

// ValidateLogOptions applies the API's rules for PodLogOptions.
func ValidateLogOptions(o *corev1.PodLogOptions) error {
	switch {
	case o.TailLines != nil && *o.TailLines < 0:
		return errors.New("tailLines must not be negative")
	case o.LimitBytes != nil && *o.LimitBytes < 1:
		return errors.New("limitBytes must be greater than 0")
	case o.SinceSeconds != nil && o.SinceTime != nil:
		return errors.New("at most one of sinceTime or sinceSeconds may be given")
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		return errors.New("sinceSeconds must be greater than 0")
	}
	if o.Stream == nil {
		return nil
	}
	switch *o.Stream {
	case corev1.LogStreamAll:
		return nil
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		if o.TailLines != nil {
			return errors.New("tailLines cannot be combined with a single stream")
		}
		return nil
	}
	return fmt.Errorf("stream %q is not All, Stdout or Stderr", *o.Stream)
}
