package main

// skip is a test that is not run, by a part of its name.
type skip struct {
	name   string
	regexp bool
	reason string
}

// disruptive tests change the whole cluster, or need a second one.
var disruptive = []skip{
	{name: "[Serial]", reason: "runs alone and changes the cluster for all others"},
	{name: "[Disruptive]", reason: "restarts kubelets over ssh"},
}

var nodeSkips = disruptive

var storageSkips = append([]skip{
	{name: "[Slow]", reason: "left to long runs"},
}, disruptive...)
