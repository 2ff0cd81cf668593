package main

import (
	"runtime/debug"
	"strings"
)

// version gives the version of the SDK's Kinesis module.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if strings.HasSuffix(module.Path, "/service/kinesis") {
				return strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return "unknown"
}
