package netdrv

import "context"

// AwaitReleases waits until the devices are released whose endpoints were deleted before.
func AwaitReleases(ctx context.Context, d *Driver) error { return d.endpoints.awaitReleases(ctx, "") }
