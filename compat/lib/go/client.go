// Package steps holds the steps that every Go client goes through (../../README.md tells what must hold).
//
// A client's program brings an adapter, the interfaces below, and calls Run. Every wait is bounded, and a
// whole step is as well: a client that hangs fails its step, not the run.
package steps

import (
	"errors"
	"runtime/debug"
	"time"
)

// ErrExists: the topic is there already.
var ErrExists = errors.New("the topic exists already")

// ErrUnknown: there is no such topic.
var ErrUnknown = errors.New("no such topic")

// Header is one record header.
type Header struct {
	Key   string
	Value string
}

// Record is what was sent or read. A nil key or value is Kafka's null.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Timestamp  int64 // milliseconds
	Partition  int32
	Offset     int64
	Codec      string // how the batch that held it was compressed, where the client tells; else empty
}

// Place is where a record was acknowledged.
type Place struct {
	Partition int32
	Offset    int64
}

// Client is one client library.
type Client interface {
	Name() string
	Version() string
	Codecs() []string
	// Metadata gives the brokers as host:port, and the number of partitions by topic.
	Metadata() ([]string, map[string]int, error)
	Create(topic string, partitions int32, config map[string]string) error // ErrExists
	Config(topic string) (map[string]string, error)
	Delete(topic string) error // ErrUnknown
	// Producer sends with acks=all, idempotent, to the partition that a record names.
	Producer(codec string) (Producer, error)
	// Consumer with a group subscribes and never commits by itself; without one it is assigned every
	// partition from its beginning.
	Consumer(topic, group string) (Consumer, error)
}

// Producer sends records in order.
type Producer interface {
	Send(topic string, record Record) error
	// Flush waits for what was sent since the last one, and gives its places in the order of sending.
	Flush() ([]Place, error)
	Close() error
}

// Consumer reads records.
type Consumer interface {
	// Poll gives what has come, waiting that long for the first record.
	Poll(wait time.Duration) ([]Record, error)
	Assignment() []int32
	Commit(map[int32]int64) error
	// Committed leaves out what was never committed.
	Committed() (map[int32]int64, error)
	// OffsetsForTime leaves out partitions that hold nothing at or after that time.
	OffsetsForTime(milliseconds int64) (map[int32]int64, error)
	Seek(map[int32]int64) error
	// Close leaves the group.
	Close() error
}

// ModuleVersion gives the version of a module that this program was built with.
func ModuleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range info.Deps {
		if module.Path == path {
			return module.Version
		}
	}
	return "unknown"
}
