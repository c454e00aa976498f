// Package client turns a go-fuse RawFileSystem into a Sidemount client: a program that needs no privilege, and whose death
// the applications do not notice. It does not mount, restart or supervise anything; the broker and the agent do.
//
// # How a client's main looks
//
//	s, err := client.Open()             // the volume arrives over the inherited file 3
//	if err != nil { … }
//	engine, err := open(s.Volume())     // connect, check; nothing is served yet
//	if err != nil { os.Exit(s.Fail(err)) }
//	err = s.Serve(ctx, engine, client.Options{Flush: engine.FlushAll})
//	if err != nil { os.Exit(s.Fail(err)) }
//
// # What a client must do to survive kill -9
//
//   - Node ids are persistent: the next process understands an id that this one gave out.
//   - File handles are stateless: READ and WRITE carry the node id and the open flags, so an unknown handle is opened again.
//   - What has been acknowledged but is not yet on stable storage lies in Session.Memory, which outlives the process, and
//     is written again in RawFileSystem.Init, before the first request.
//   - Small facts (a metadata session's id) go to Session.Put.
//
// Serve does the rest: it answers requests that the kernel sends a second time from a journal of results. examples/notes is a whole client; docs/clients.md tells what else
// one has to know, and how a volume comes to use it.
//
// # FUSE passthrough
//
// A client whose files are files of the host can have the kernel read and write them: Session.Back, Unback and Known.
package client
