package provider

import (
	"errors"
	"slices"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	vklogrus "github.com/virtual-kubelet/virtual-kubelet/log/logrus"
)

func TestQuietLogger(t *testing.T) {
	logger, hook := test.NewNullLogger()
	q := quietLogger{vklogrus.FromLogrus(logrus.NewEntry(logger))}.WithField("a", 1).WithFields(map[string]any{"b": 2}).WithError(errors.New("c"))
	q.Error("Force deleting pod in running state")
	q.Warnf("There was a conflict, maybe trying to delete a Pod that has been recreated: %v", errors.New("x"))
	q.Error("something else")
	q.Warnf("there was %s", "another")
	var got []string
	for _, e := range hook.AllEntries() {
		got = append(got, e.Message)
	}
	if want := []string{"something else", "there was another"}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}
