package csi

import (
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// redacted prints a message for the log without the fields that the CSI specification marks as secret (csi_secret). Printing
// is put off until the log's level asks for it.
type redacted struct{ message any }

// String implements fmt.Stringer.
func (r redacted) String() string {
	m, ok := r.message.(protoadapt.MessageV1)
	if !ok {
		return fmt.Sprintf("[%T]", r.message)
	}
	copied := proto.Clone(protoadapt.MessageV2Of(m))
	strike(copied.ProtoReflect())
	return prototext.MarshalOptions{}.Format(copied)
}

// strike removes the secret fields of a message and of those in it.
func strike(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case secret(field):
			m.Clear(field)
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				strike(v.Message())
				return true
			})
		case field.IsMap() || field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				strike(value.List().Get(i).Message())
			}
		default:
			strike(value.Message())
		}
		return true
	})
}

func secret(field protoreflect.FieldDescriptor) bool {
	options := field.Options()
	if options == nil || !proto.HasExtension(options, spec.E_CsiSecret) {
		return false
	}
	// A mark of an unknown type is taken for a yes.
	marked, ok := proto.GetExtension(options, spec.E_CsiSecret).(bool)
	return marked || !ok
}
