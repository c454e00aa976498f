package main

import (
	"context"

	"github.com/sidemount/sidemount/provider/cri/imagegc"
	"github.com/sidemount/sidemount/provider/logs"
)

// keepHouse bounds what pods leave on the disk: logs are rotated, images that nobody uses go when the disk fills.
func (n *virtualNode) keepHouse(context.Context) error {
	keeper, err := logs.NewKeeper(logs.KeeperOptions{Runtime: n.runtime, Root: n.options.podLogsDir, Links: n.options.containerLogsDir})
	if err != nil {
		return err
	}
	n.add("logs", keeper.Run)
	images, err := imagegc.New(imagegc.Options{Runtime: n.runtime})
	if err != nil {
		return err
	}
	n.add("images", images.Run)
	return nil
}
