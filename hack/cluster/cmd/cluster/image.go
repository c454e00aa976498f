package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/sidemount/sidemount/hack/cluster/internal/cluster"
	"github.com/sidemount/sidemount/hack/cluster/internal/image"
	"github.com/sidemount/sidemount/hack/cluster/internal/registry"
)

func runImage(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "build" {
		return runImageBuild(args[1:])
	}
	if len(args) > 0 && args[0] == "push" {
		return runImagePush(ctx, args[1:])
	}
	return fmt.Errorf("image: it is `image build` or `image push`")
}

func runImageBuild(args []string) error {
	f := newFlags("image build", "--name REF --tar FILE [flags]")
	var names, files, links, dirs, entrypoint, cmd, env list
	f.Var(&names, "name", "`reference` of the image; may be repeated")
	tar := f.String("tar", "", "`file` to write")
	f.Var(&files, "file", "`source:target[:mode]` of a file; may be repeated")
	f.Var(&links, "link", "`target:name` of a symbolic link; may be repeated")
	f.Var(&dirs, "dir", "`path[:mode]` of a directory; may be repeated")
	f.Var(&entrypoint, "entrypoint", "`word` of the entrypoint; repeat it for each word")
	f.Var(&cmd, "cmd", "`word` of the command; repeat it for each word")
	f.Var(&env, "env", "`NAME=value`; may be repeated")
	user := f.String("user", "", "`uid[:gid]` to run as")
	workdir := f.String("workdir", "", "`directory` to run in")
	if err := parse(f, args); err != nil {
		return err
	}
	if len(names) == 0 || *tar == "" {
		return fmt.Errorf("image build needs --name and --tar")
	}
	layer, err := parseLayer(files, links, dirs)
	if err != nil {
		return err
	}
	return image.Build(image.Spec{
		Names: names, Layer: layer, Entrypoint: entrypoint, Cmd: cmd, User: *user, Env: env, WorkingDir: *workdir,
	}, *tar)
}

func parseLayer(files, links, dirs list) (image.Layer, error) {
	var l image.Layer
	for _, v := range files {
		parts := strings.Split(v, ":")
		if len(parts) < 2 || len(parts) > 3 {
			return l, fmt.Errorf("--file %q: it is source:target[:mode]", v)
		}
		mode, err := parseMode(parts[2:], 0) // 0: that of the source
		if err != nil {
			return l, err
		}
		l.Files = append(l.Files, image.File{Source: parts[0], Target: parts[1], Mode: mode})
	}
	for _, v := range links {
		target, name, ok := strings.Cut(v, ":")
		if !ok {
			return l, fmt.Errorf("--link %q: it is target:name", v)
		}
		l.Links = append(l.Links, image.Link{Target: target, Name: name})
	}
	for _, v := range dirs {
		parts := strings.SplitN(v, ":", 2)
		mode, err := parseMode(parts[1:], 0o755)
		if err != nil {
			return l, err
		}
		l.Dirs = append(l.Dirs, image.Dir{Name: parts[0], Mode: mode})
	}
	return l, nil
}

func parseMode(part []string, otherwise int64) (int64, error) {
	if len(part) == 0 {
		return otherwise, nil
	}
	mode, err := strconv.ParseInt(part[0], 8, 64)
	if err != nil || mode <= 0 || mode > 0o7777 {
		return 0, fmt.Errorf("mode %q is not an octal number up to 7777", part[0])
	}
	return mode, nil
}

func runImagePush(ctx context.Context, args []string) error {
	f := newFlags("image push", "[--name NAME] [--auth] ARCHIVE…")
	name := nameFlag(f)
	auth := f.Bool("auth", false, "push to the registry that asks for a password")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fmt.Errorf("image push needs an archive")
	}
	s, err := cluster.Load(*name)
	if err != nil {
		return err
	}
	to := s.Registry
	if *auth {
		to = s.AuthRegistry
	}
	for _, archive := range f.Args() {
		pushed, err := image.Push(ctx, archive, image.Target{Address: to.Address, Username: to.Username, Password: to.Password})
		if err != nil {
			return err
		}
		for _, p := range pushed {
			fmt.Println(p)
		}
	}
	return nil
}

func runRegistry(ctx context.Context, args []string) error {
	f := newFlags(cluster.RegistryCommand, "")
	o := registry.Options{Password: os.Getenv("REGISTRY_PASSWORD")} // not for other users' eyes, as flags are
	f.StringVar(&o.Dir, "dir", "", "")
	f.StringVar(&o.Address, "listen", "", "")
	f.StringVar(&o.AuthAddress, "auth-listen", "", "")
	f.StringVar(&o.Username, "username", "", "")
	if err := parse(f, args); err != nil {
		return err
	}
	return registry.Run(ctx, o)
}
