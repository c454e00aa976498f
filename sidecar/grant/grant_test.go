package grant

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidemount/sidemount/mount"
)

type granter func(Request) ([]Result, error)

func (g granter) Grant(_ context.Context, r Request) ([]Result, error) { return g(r) }

// serve answers every connection until the test ends, and returns how it is reached.
func serve(t *testing.T, protocols []string, g Granter) Options {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"hook.ns.svc"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protocols,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := Serve(t.Context(), conn, g); err != nil {
				t.Log(err)
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{
		Servers: []string{l.Addr().String()}, ServerName: "hook.ns.svc", TokenFile: token,
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVolumesArriveAsTheyAre(t *testing.T) {
	v := mount.Volume{ID: "pv", Name: "a", Client: mount.JuiceFS, Options: []string{"x=y"}, Secret: mount.Secret{"metaurl": "redis://:pw@h"}}
	o := serve(t, []string{Protocol}, granter(func(r Request) ([]Result, error) {
		if r.Token != "secret-token" {
			t.Errorf("token arrived as %q", r.Token)
		}
		return []Result{{Volume: &v}, {Error: &Failure{Message: "waits", Transient: true}}}, nil
	}))
	got, err := client(t, o).Ask(t.Context(), []string{"a", "b"})
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	if diff := cmp.Diff(&v, got[0].Volume); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(got[1].Error, mount.ErrUnavailable) {
		t.Errorf("got %v", got[1].Error)
	}
}

func TestTheNextServerIsAsked(t *testing.T) {
	o := serve(t, []string{Protocol}, granter(func(Request) ([]Result, error) { return []Result{{Volume: &mount.Volume{}}}, nil }))
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	o.Servers = append([]string{dead.Addr().String()}, o.Servers...)
	if _, err := client(t, o).Ask(t.Context(), []string{"a"}); err != nil {
		t.Error(err)
	}
}

func TestRefusalsKeepTheirClass(t *testing.T) {
	for _, class := range []error{mount.ErrConfig, mount.ErrUnavailable} {
		o := serve(t, []string{Protocol}, granter(func(Request) ([]Result, error) { return nil, fmt.Errorf("no: %w", class) }))
		if _, err := client(t, o).Ask(t.Context(), []string{"a"}); !errors.Is(err, class) || !strings.Contains(err.Error(), "no") {
			t.Errorf("got %v", err)
		}
	}
}

func TestTheTokenGoesToNobodyElse(t *testing.T) {
	asked := granter(func(Request) ([]Result, error) { t.Error("a stranger got the token"); return nil, nil })
	for name, spoil := range map[string]func(*Options){
		"another name":      func(o *Options) { o.ServerName = "evil" },
		"another authority": func(o *Options) { o.CA = serve(t, nil, asked).CA },
	} {
		o := serve(t, []string{Protocol}, asked)
		spoil(&o)
		if _, err := client(t, o).Ask(t.Context(), []string{"a"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := client(t, serve(t, []string{"http/1.1"}, asked)).Ask(t.Context(), []string{"a"}); err == nil {
		t.Error("another protocol: no error")
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	hold := make(chan struct{})
	o := serve(t, []string{Protocol}, granter(func(Request) ([]Result, error) { <-hold; return nil, errors.New("late") }))
	t.Cleanup(func() { close(hold) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client(t, o).Ask(ctx, []string{"a"}); err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	head := binary.BigEndian.AppendUint32(nil, maxRequest+1)
	var r Request
	if err := read(bytes.NewReader(head), &r, maxRequest); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
	if err := read(bytes.NewReader([]byte{0, 0, 0, 9, '{'}), &r, maxRequest); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if err := write(io.Discard, Request{Token: strings.Repeat("x", maxRequest)}, maxRequest); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

func TestNoTokenIsPrinted(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, Request{Token: "hidden", Volumes: []string{"a"}}); strings.Contains(got, "hidden") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := write(&b, Request{Token: "t", Volumes: []string{"a"}}, maxRequest); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		if read(bytes.NewReader(b), &r, maxRequest) != nil || r.check() != nil {
			return
		}
		var again bytes.Buffer
		if err := write(&again, r, maxRequest); err != nil {
			return // JSON may write longer what it has read shorter
		}
		var r2 Request
		if err := read(&again, &r2, maxRequest); err != nil || r2.Token != r.Token {
			t.Errorf("%v after %v, %v", r2, r, err)
		}
	})
}
