package csi

import (
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/status"
)

// shortestSecret is the fewest bytes of a value that are struck out: shorter ones stand in many words by chance.
const shortestSecret = 4

// plainKeys are keys of a Secret that hold nothing secret and make errors useful.
var plainKeys = []string{"name", "storage", "block-size", "compress", "trash-days", "capacity", "inodes", "shards"}

// scrub strikes the values of a request's Secret out of its error. The packages below take care not to quote them; the engines
// that they call are other people's, and an error goes into events that a whole namespace can read.
func scrub(err error, request any) error {
	r, ok := request.(interface{ GetSecrets() map[string]string })
	if err == nil || !ok || len(r.GetSecrets()) == 0 {
		return err
	}
	told := status.Convert(err)
	text := told.Message()
	for _, value := range secretValues(r.GetSecrets()) {
		text = strings.ReplaceAll(text, value, "***")
	}
	if text == told.Message() {
		return err
	}
	return status.Error(told.Code(), text)
}

// secretValues returns what must not be seen, the longest first so that a part does not spoil the whole.
func secretValues(secrets map[string]string) []string {
	var values []string
	for key, value := range secrets {
		if slices.Contains(plainKeys, key) {
			continue
		}
		value = strings.TrimSpace(value)
		for _, v := range append(passwords(value), value) {
			if len(v) >= shortestSecret {
				values = append(values, v)
			}
		}
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	return values
}

// passwords returns the password of a URL such as redis://user:password@host, as it stands and unescaped.
func passwords(text string) []string {
	rest := text
	if _, after, ok := strings.Cut(text, "://"); ok {
		rest = after
	}
	at := strings.LastIndex(rest, "@")
	if at < 0 {
		return nil
	}
	_, password, ok := strings.Cut(rest[:at], ":")
	if !ok {
		return nil
	}
	found := []string{password}
	if plain, err := url.PathUnescape(password); err == nil && plain != password {
		found = append(found, plain)
	}
	return found
}
