package main

import "testing"

func TestParseFigures(t *testing.T) {
	f, err := parseFigures([]byte(`# HELP rest_client_requests_total Number of HTTP requests
rest_client_requests_total{code="200",host="10.0.0.1:443",method="GET"} 7
rest_client_requests_total{code="201",host="10.0.0.1:443",method="POST"} 3
sidemount_mountpod_acquire_seconds_bucket{result="ok",start="shared",le="0.1"} 4
sidemount_mountpod_acquire_seconds_sum{result="ok",start="shared"} 0.5
sidemount_mountpod_acquire_seconds_count{result="ok",start="shared"} 4
sidemount_mountpod_acquire_seconds_sum{result="ok",start="cold"} 1.5e+00
sidemount_mountpod_acquire_seconds_count{result="ok",start="cold"} 2
sidemount_mountpod_shares 1
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := (figures{requests: 10, shared: 4, sharedSeconds: 0.5, cold: 2, coldSeconds: 1.5}); f != want {
		t.Errorf("got %+v, want %+v", f, want)
	}
	if got, want := f.since(figures{requests: 4, cold: 1}), (figures{requests: 6, shared: 4, sharedSeconds: 0.5, cold: 1, coldSeconds: 1.5}); got != want {
		t.Errorf("since: got %+v, want %+v", got, want)
	}
	if _, err := parseFigures([]byte("go_goroutines 5\n")); err == nil {
		t.Error("figures of something else were taken")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		all  []float64
		want float64
	}{{nil, 0}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2}} {
		if got := median(c.all); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.all, got, c.want)
		}
	}
}
