// Package imagegc removes images that no container uses when the disk on which the runtime keeps them fills up, those first that
// nobody has used for longest. It removes nothing else, and nothing while there is room: a pod starts faster with its image there.
package imagegc
