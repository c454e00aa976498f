package sidecar

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resourceDefaults are requests and limits of a sidecar that nobody has sized.
var resourceDefaults = []struct {
	name           corev1.ResourceName
	request, limit string // defaults
	asks, limits   string // attributes
	example        string
}{
	{corev1.ResourceCPU, "1", "2", attrCPURequest, attrCPULimit, "500m"},
	{corev1.ResourceMemory, "1Gi", "5Gi", attrMemoryRequest, attrMemoryLimit, "512Mi"},
}

// resources returns requests and limits. Annotations of the claim win over attributes of the volume. As with the JuiceFS
// CSI driver a limit of "0" means no limit, and a request of "0" is an explicit request of nothing. A default never
// contradicts what was asked for: it gives way to the other bound.
func (s Source) resources() (corev1.ResourceRequirements, error) {
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, d := range resourceDefaults {
		request, asked, err := s.quantity(d.asks, d.request, d.example)
		if err != nil {
			return out, err
		}
		limit, limited, err := s.quantity(d.limits, d.limit, d.example)
		if err != nil {
			return out, err
		}
		unlimited := limited && limit.IsZero()
		if !unlimited && request.Cmp(limit) > 0 {
			switch {
			case asked && limited:
				return out, s.badQuantity(d.asks, fmt.Sprintf("asks for more %s than its limit allows: %s of %s", d.name, request.String(), limit.String()),
					"raise "+d.limits+" or lower "+d.asks)
			case asked:
				limit = request.DeepCopy()
			default:
				request = limit.DeepCopy()
			}
		}
		out.Requests[d.name] = request
		if !unlimited {
			out.Limits[d.name] = limit
		}
	}
	return out, nil
}

// quantity reads a quantity; set tells whether somebody has written it.
func (s Source) quantity(key, fallback, example string) (q resource.Quantity, set bool, err error) {
	text := s.Attributes[key]
	if v, ok := s.Annotations[key]; ok {
		text = v
	}
	if text == "" {
		return resource.MustParse(fallback), false, nil
	}
	q, err = resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return q, true, s.badQuantity(key, fmt.Sprintf("has %q as a quantity", text), fmt.Sprintf("write it as in %q; \"0\" removes a limit", example))
	}
	return q, true, nil
}

// badQuantity blames the annotation or the attribute, whichever counts.
func (s Source) badQuantity(key, message, cure string) *Error {
	e := s.bad(key, message, cure)
	if _, ok := s.Annotations[key]; ok {
		e.Object, e.Field = s.AnnotationsObject, "metadata.annotations["+key+"]"
	}
	return e
}
