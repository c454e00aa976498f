package sidecar

import "github.com/sidemount/sidemount/mount"

// AgentPath is where every sidecar finds the agent, whatever its image: the directory is bind-mounted read-only.
const AgentPath = AgentMount + "/sidemount-agent"

// Directories of a sidecar that Inject mounts.
const (
	// AgentMount holds the agent's executable.
	AgentMount = "/run/sidemount/bin"
	// SessionMount holds the socket of the session.
	SessionMount = "/run/sidemount/session"
)

// Default identity of a sidecar: the user and group "nobody".
const (
	DefaultUID int64 = 65534
	DefaultGID int64 = 65534
)

// Client is how a kind of client is started.
type Client struct {
	// Repository is the default image without a tag; the tag is Options.Version.
	Repository string
	// Image is a default image with its tag, for clients that live in the agent's own executable. It wins over Repository.
	Image string
	// Argv is the command.
	Argv []string
	// Secret means that the client cannot work without a Secret.
	Secret bool
}

// Clients are the clients that a volume can name in the attribute "sidemount.io/client".
var Clients = map[mount.ClientKind]Client{
	mount.JuiceFS: {
		Repository: "ghcr.io/sidemount/juicefs-client",
		Argv:       []string{"/usr/local/bin/sidemount-juicefs"},
		Secret:     true,
	},
	mount.Passthrough: {
		// The client is in the agent, so that any image does; this one is on every node.
		Image: "registry.k8s.io/pause:3.10",
		Argv:  []string{AgentPath, "passthrough"},
	},
}
