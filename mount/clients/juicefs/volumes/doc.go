// Package volumes carries out the administrative commands (mount/admin) on one JuiceFS file system, in its metadata engine
// alone: nothing is mounted, no file content is read or written, and no program is run. It doesn't choose file systems, speak
// to callers or end processes; package worker does.
//
// # Layout
//
// Everything lies below the directory that the option "subdir" names, or the file system's root:
//
//	<path>                    a volume: an ordinary directory
//	.sidemount/               0700, owned by user 0
//	  volumes/<id>            an empty file: the record of a volume, in the extended attribute trusted.sidemount.record (JSON)
//	  snapshots/<id>          the record of a snapshot, likewise
//	  content/<id>            the snapshot's tree
//	  new/<id>                a volume's directory while it is made
//	  trash/<id>-<n>          what is to be removed
//
// A record is an attribute and no content because content would need the object storage. A volume's directory carries an
// attribute trusted.sidemount.volume.<id> for each volume that lies there: its members. They go where the directory goes, in
// one step, and a program in a pod cannot change them (trusted attributes need CAP_SYS_ADMIN on the host).
//
// # What makes the commands safe
//
// Nothing is locked across workers; the order of single steps, each atomic in the metadata engine, is enough:
//
//   - Create: the record says "creating" before anything else is done, exclusively. The directory is finished under new/<id>, with
//     content, quota and member, and appears at its path by one rename that replaces nothing. Then the record says "ready".
//   - A clone appears at its name when it is complete (JuiceFS attaches the finished tree), so what is there is whole.
//   - Delete: the record says "deleting" first and goes last. The directory leaves by one rename into trash/, then its
//     members are read again: whoever has joined in between gets it back. Who joins looks again, too, whether the path still
//     leads there.
//   - Whatever a dead worker has left is finished by the same command, and what nobody asks for again (new/ and content/
//     without a record, trash/) by the next Service that opens the file system.
//
// Volumes do not lie within volumes: deleting the outer one would delete the inner. A path within a volume is refused; a
// directory that is taken over as a volume is refused if volumes lie in it.
//
// # Removing
//
// What is in trash/ is removed as `juicefs rmr` does it: the file system's trash-days are honoured, so that a deleted volume's
// files can be restored from .trash for that long (trash-days 0: they go at once), and its space is free after that. Objects
// of files that go at once are deleted from the object storage if it can be reached; otherwise, and for what expires in .trash,
// a client that has the file system mounted does it.
package volumes
