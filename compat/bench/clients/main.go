// Loads that need many clients at once, in one process.
//
//	clients connections BOOTSTRAP TOPIC CLIENTS SECONDS
//	clients latency BOOTSTRAP TOPIC RECORDS_PER_SECOND WARM_SECONDS SECONDS
//	clients fanout ENDPOINT STREAM CONSUMERS RECORDS_PER_SECOND SECONDS
//
// The last line of the output is one JSON object.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

func number(argument string) int {
	value, err := strconv.Atoi(argument)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// client speaks as Kafka 3.8 does: there are brokers that hang up on those who ask for later versions.
func client(bootstrap string, options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap), kgo.MaxVersions(kversion.V3_8_0()))...)
	check(err)
	return made
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// uncollected keeps the garbage collector out of the delays: a run makes some gigabytes at most.
func uncollected() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(4 << 30)
}

// milliseconds is a quantile of the delays, which it sorts.
func milliseconds(delays []time.Duration, part float64) float64 {
	if len(delays) == 0 {
		log.Fatal("nothing was measured")
	}
	slices.Sort(delays)
	return float64(delays[min(int(float64(len(delays))*part), len(delays)-1)]) / float64(time.Millisecond)
}

// tell prints the quantiles of the delays, beside what else there is to say.
func tell(delays []time.Duration, more map[string]any) {
	more["p50_ms"], more["p99_ms"], more["p999_ms"] = milliseconds(delays, 0.5), milliseconds(delays, 0.99), milliseconds(delays, 0.999)
	if err := json.NewEncoder(os.Stdout).Encode(more); err != nil {
		log.Fatal(err)
	}
}

func main() {
	arguments := os.Args[1:]
	ctx := context.Background()
	switch {
	case len(arguments) == 5 && arguments[0] == "connections":
		connections(ctx, arguments[1], arguments[2], number(arguments[3]), time.Duration(number(arguments[4]))*time.Second)
	case len(arguments) == 6 && arguments[0] == "latency":
		latency(ctx, arguments[1], arguments[2], number(arguments[3]), time.Duration(number(arguments[4]))*time.Second,
			time.Duration(number(arguments[5]))*time.Second)
	case len(arguments) == 6 && arguments[0] == "fanout":
		fanOut(ctx, arguments[1], arguments[2], number(arguments[3]), number(arguments[4]),
			time.Duration(number(arguments[5]))*time.Second)
	default:
		fmt.Fprintln(os.Stderr, "connections BOOTSTRAP TOPIC CLIENTS SECONDS | latency BOOTSTRAP TOPIC RATE WARM SECONDS | fanout ENDPOINT STREAM CONSUMERS RATE SECONDS")
		os.Exit(2)
	}
}
