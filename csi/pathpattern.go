package csi

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidemount/sidemount/sidecar"
)

// Claims reads single claims.
type Claims interface {
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
}

// Nodes reads single nodes.
type Nodes interface {
	Node(ctx context.Context, name string) (*corev1.Node, error)
}

// selectedNode is the annotation by which the scheduler tells where the first pod of a claim will run.
const selectedNode = "volume.kubernetes.io/selected-node"

// template is a place for a fact about the claim or its node, as the JuiceFS CSI driver writes it.
var template = regexp.MustCompile(`\$\{\.(PVC|pvc|node)\.([^{}]*)\}`)

const templateCure = "use ${.pvc.name}, ${.pvc.namespace}, ${.pvc.labels.KEY}, ${.pvc.annotations.KEY}, ${.node.name}, ${.node.podCIDR}, " +
	"${.node.labels.KEY} or ${.node.annotations.KEY}"

// facts are what templates of one request are filled with. Objects are read when a template first needs them, and once.
type facts struct {
	claims          Claims
	nodes           Nodes
	namespace, name string
	claim           *corev1.PersistentVolumeClaim
	node            *corev1.Node
}

// templated is true for a text with something to fill in.
func templated(text string) bool { return template.MatchString(text) }

// fill puts facts into a text. check judges each value, because who writes a claim is not who writes a StorageClass; where is
// the place of the text, for errors. A label or annotation that is not there is an error if it is needed, else nothing.
//
// What a change of the claim cures is FailedPrecondition and never InvalidArgument: csi-provisioner puts claims with the latter
// aside for minutes, also if they are changed.
func (f *facts) fill(ctx context.Context, text, where string, needed bool, check func(string) string) (string, error) {
	var problem error
	filled := template.ReplaceAllStringFunc(text, func(found string) string {
		if problem != nil {
			return ""
		}
		parts := template.FindStringSubmatch(found)
		value, ok, err := f.value(ctx, strings.ToLower(parts[1]), parts[2])
		switch {
		case err != nil:
			problem = err
		case !ok && needed:
			problem = status.Errorf(codes.FailedPrecondition, "%s has %s, and %s has no such thing; set it, or change the StorageClass", where, found, f.owner(parts[1]))
		case check(value) != "":
			problem = status.Errorf(codes.FailedPrecondition, "%s has %s, and the value of %s %s", where, found, f.owner(parts[1]), check(value))
		}
		return value
	})
	if problem != nil {
		return "", problem
	}
	if left := strings.Index(text, "${."); left >= 0 && strings.Contains(template.ReplaceAllString(text, ""), "${.") {
		return "", status.Errorf(codes.InvalidArgument, "%s has an unknown template: %q; %s", where, text[left:], templateCure)
	}
	return filled, nil
}

// value returns one fact; ok is false for a label or annotation that is not there.
func (f *facts) value(ctx context.Context, object, field string) (value string, ok bool, err error) {
	if object == "node" {
		return f.nodeValue(ctx, field)
	}
	if f.name == "" || f.namespace == "" {
		return "", false, status.Error(codes.InvalidArgument,
			"the StorageClass has a template and the request does not name its claim; start csi-provisioner with --extra-create-metadata")
	}
	switch field {
	case "name":
		return f.name, true, nil
	case "namespace":
		return f.namespace, true, nil
	}
	kind, key, found := strings.Cut(field, ".")
	if !found || kind != "labels" && kind != "annotations" {
		return "", false, unknownTemplate(object, field)
	}
	if err := f.readClaim(ctx); err != nil {
		return "", false, err
	}
	if kind == "labels" {
		value, ok = f.claim.Labels[key]
	} else {
		value, ok = f.claim.Annotations[key]
	}
	return value, ok, nil
}

func (f *facts) nodeValue(ctx context.Context, field string) (value string, ok bool, err error) {
	kind, key, found := strings.Cut(field, ".")
	if field != "name" && field != "podCIDR" && (!found || kind != "labels" && kind != "annotations") {
		return "", false, unknownTemplate("node", field)
	}
	if err := f.readNode(ctx); err != nil {
		return "", false, err
	}
	switch {
	case field == "name":
		return f.node.Name, true, nil
	case field == "podCIDR":
		return f.node.Spec.PodCIDR, f.node.Spec.PodCIDR != "", nil
	case kind == "labels":
		value, ok = f.node.Labels[key]
	default:
		value, ok = f.node.Annotations[key]
	}
	return value, ok, nil
}

func unknownTemplate(object, field string) error {
	return status.Errorf(codes.InvalidArgument, "the StorageClass has the unknown template ${.%s.%s}; %s", object, field, templateCure)
}

func (f *facts) readClaim(ctx context.Context) error {
	if f.claim != nil {
		return nil
	}
	if f.name == "" || f.namespace == "" {
		return status.Error(codes.InvalidArgument,
			"the StorageClass has a template and the request does not name its claim; start csi-provisioner with --extra-create-metadata")
	}
	if f.claims == nil {
		return status.Error(codes.InvalidArgument, "the StorageClass has a template, and the driver has no access to the API server")
	}
	claim, err := f.claims.PersistentVolumeClaim(ctx, f.namespace, f.name)
	if err != nil {
		return goneOrUnread("PersistentVolumeClaim "+f.namespace+"/"+f.name, err)
	}
	f.claim = claim
	return nil
}

func (f *facts) readNode(ctx context.Context) error {
	if f.node != nil {
		return nil
	}
	if err := f.readClaim(ctx); err != nil {
		return err
	}
	name := f.claim.Annotations[selectedNode]
	if name == "" {
		return status.Errorf(codes.FailedPrecondition,
			"the StorageClass has a template with the node, and no node is chosen for PersistentVolumeClaim %s/%s; use volumeBindingMode: WaitForFirstConsumer", f.namespace, f.name)
	}
	if f.nodes == nil {
		return status.Error(codes.InvalidArgument, "the StorageClass has a template with the node, and the driver has no access to the API server")
	}
	node, err := f.nodes.Node(ctx, name)
	if err != nil {
		return goneOrUnread("Node "+name, err)
	}
	f.node = node
	return nil
}

// goneOrUnread tells an object that is gone from an API server that does not answer.
func goneOrUnread(object string, err error) error {
	if apierrors.IsNotFound(err) {
		return status.Error(codes.FailedPrecondition, object+" is gone")
	}
	return sidecar.Unread(object, err)
}

// owner names the object that a template speaks of.
func (f *facts) owner(object string) string {
	if object == "node" && f.node != nil {
		return "Node " + f.node.Name
	}
	return "PersistentVolumeClaim " + f.namespace + "/" + f.name
}

// subPath returns the directory of a volume by the StorageClass' pattern. Literal parts of the pattern are the
// administrator's, and cleaned; what a claim puts in must be proper as it stands.
func (f *facts) subPath(ctx context.Context, pattern string) (string, error) {
	const where = "parameter pathPattern"
	// "${pvc.name}", with no dot, is the way of Secret names. Taken as it stands, it would put all volumes into one directory.
	if strings.Contains(template.ReplaceAllString(pattern, ""), "${") {
		return "", status.Errorf(codes.InvalidArgument, "%s has an unknown template: %q; %s", where, pattern, templateCure)
	}
	filled, err := f.fill(ctx, pattern, where, true, pathProblem)
	if err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(filled, "/") {
		if part == ".." || part == "." {
			return "", status.Errorf(codes.InvalidArgument, "%s gives the directory %q, which has the part %q", where, filled, part)
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+filled), "/")
	if clean == "" {
		return "", status.Errorf(codes.InvalidArgument, "%s gives no directory of its own to the volume", where)
	}
	return clean, nil
}

// pathProblem says what is wrong with a value as a part of a path, or "".
func pathProblem(value string) string {
	switch {
	case strings.TrimSpace(value) == "":
		return "is empty"
	case strings.ContainsFunc(value, control) || strings.Contains(value, ","):
		return "has a comma or a control character, which no path may have"
	case strings.HasPrefix(value, "/") || strings.HasSuffix(value, "/") || strings.Contains(value, "//"):
		return "has a slash at its beginning or end, or two in a row"
	}
	for part := range strings.SplitSeq(value, "/") {
		if part == "." || part == ".." {
			return fmt.Sprintf("has the part %q", part)
		}
		if len(part) > unix.NAME_MAX {
			return fmt.Sprintf("has a part of more than %d bytes", unix.NAME_MAX)
		}
	}
	return ""
}

// valueProblem says what is wrong with a value inside a parameter: what would end a list entry, a word in quotes or a line
// there would let the claim's author write parameters.
func valueProblem(value string) string {
	if strings.ContainsFunc(value, control) || strings.ContainsAny(value, `,"'\{}`) {
		return `has a comma, a quote, a backslash, a brace or a control character`
	}
	return ""
}

func control(r rune) bool { return r < ' ' || r == 0x7f }
