// Package wire carries messages with files between broker, agent and client over SOCK_SEQPACKET unix sockets. It holds no session and decides nothing:
// who may say what and when is the business of the two ends.
//
// # Agent and broker
//
//	agent  → broker   hello                                 a new agent, it has nothing
//	broker → agent    session  + fuse, memory, lease W, R   everything that serving needs
//	agent  → broker   deposit  + fuse, memory, lease R      an agent that had the session from an earlier broker
//	broker → agent    accepted                              the deposit is in safe hands
//	agent  → broker   state                                 what its client does; repeated on every change
//	broker → agent    ping ↔ pong                           is the agent alive, and is its client
//	broker → agent    update                                the volume has changed and no client has ever served it
//	broker → agent    replace                               kill the client and start another one
//	broker → agent    close                                 flush, end the client, say closed, exit
//	agent  → broker   closed
//	broker → agent    refused                               then it hangs up
//
// # A second agent, which takes the session over
//
//	broker → agent    standby  + fuse, memory, lease W, R, the serving agent's lease R
//	                                                        prepare a client and wait; instead of session
//	agent  → broker   reserve  + fuse, memory, the serving agent's lease R, its own lease R
//	                                                        instead of deposit, as long as it stands by
//	broker → agent    yield                                 flush, end the client, let go of everything, hang up
//	broker → agent    promote                               the session is yours
//	agent  → broker   leaving                               the agent has been asked to end, and does so unless it is wanted
//	broker → agent    stay                                  serve on until yield, or for this long: another agent will come
//
// # Agent and client, over the client's inherited file 3
//
//	agent  → client   config   + memory, lease W            the volume, Secret included
//	client → agent    ready                                 the engine is up
//	agent  → client   attach   + fuse                       with INIT and its answer
//	client → agent    serving
//	client → agent    failed                                instead of any of the above
//	agent  → client   ping ↔ pong
//
// # Client and broker, relayed by the agent (FUSE passthrough)
//
//	client → broker   back     + file                       let the kernel read and write this file itself
//	broker → client   backed                                the file's number, or none and why
//	client → broker   unback                                these numbers are not needed any more
//	client → broker   known                                 a new client knows these numbers; all others are not needed any more
//
// An agent without a broker answers back itself, with none, and passes the other two on later.
//
// # Files
//
// Who receives a file owns it. Every message type has an exact number of files; a message with another number is refused and its files are closed. All
// received files are close-on-exec.
//
// The lease is a pipe that nobody writes to: agent and client hold the writing end, so its reader gets end-of-file exactly when the last process that could
// still answer a request has gone.
package wire
