// Package logs reads, rotates and links the log files that a container runtime writes for containers, in the format of the
// Container Runtime Interface. It does not collect or ship them.
//
// # The format
//
// A line is a record: time, stream, tags and text, separated by one space. The tag P says that the text goes on in the stream's
// next record, F that it ends there:
//
//	2016-10-06T00:17:09.669794202Z stdout P The first part of a long line
//	2016-10-06T00:17:09.669794203Z stdout F and its end
//
// # The files
//
//	<root>/<namespace>_<pod>_<uid>/<container>/<restart count>.log                   the current file
//	<root>/<namespace>_<pod>_<uid>/<container>/<restart count>.log.20060102-150405   the one before it
//	<root>/<namespace>_<pod>_<uid>/<container>/<restart count>.log.20060102-150405.gz  older ones
//	/var/log/containers/<pod>_<namespace>_<container>-<id>.log                       a link to the current file, for collectors
//
// These are the kubelet's, so that whatever reads a kubelet's logs reads ours. As with a kubelet, only the current file is read
// for a client.
package logs
