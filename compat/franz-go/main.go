// Runs franz-go, Go's own Kafka client without C, through the steps of ../lib/go.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"anabranch/compat/steps"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const requestLimit = 30 * time.Second

func main() {
	steps.Run(func(bootstrap string) (steps.Client, error) {
		c := &client{bootstrap: bootstrap}
		base, err := kgo.NewClient(c.options()...)
		if err != nil {
			return nil, err
		}
		c.admin = kadm.NewClient(base)
		return c, nil
	})
}

type client struct {
	bootstrap string
	admin     *kadm.Client
}

func (c *client) options(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{kgo.SeedBrokers(c.bootstrap), kgo.MetadataMinAge(250 * time.Millisecond)}, more...)
}

func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), requestLimit)
}

func (c *client) Name() string    { return "franz-go" }
func (c *client) Version() string { return steps.ModuleVersion("github.com/twmb/franz-go") }
func (c *client) Codecs() []string {
	return []string{"none", "gzip", "snappy", "lz4", "zstd"}
}

func (c *client) Metadata() ([]string, map[string]int, error) {
	ctx, cancel := limited()
	defer cancel()
	metadata, err := c.admin.Metadata(ctx)
	if err != nil {
		return nil, nil, err
	}
	var brokers []string
	for _, broker := range metadata.Brokers {
		brokers = append(brokers, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	}
	topics := map[string]int{}
	for name, topic := range metadata.Topics {
		topics[name] = len(topic.Partitions)
	}
	return brokers, topics, nil
}

func (c *client) Create(topic string, partitions int32, config map[string]string) error {
	ctx, cancel := limited()
	defer cancel()
	configs := map[string]*string{}
	for key, value := range config {
		configs[key] = kadm.StringPtr(value)
	}
	_, err := c.admin.CreateTopic(ctx, partitions, 1, configs, topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return steps.ErrExists
	}
	return err
}

func (c *client) Config(topic string) (map[string]string, error) {
	ctx, cancel := limited()
	defer cancel()
	resources, err := c.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(topic, nil)
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for _, entry := range resource.Configs {
		config[entry.Key] = entry.MaybeValue()
	}
	return config, resource.Err
}

func (c *client) Delete(topic string) error {
	ctx, cancel := limited()
	defer cancel()
	_, err := c.admin.DeleteTopic(ctx, topic)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return steps.ErrUnknown
	}
	return err
}

var codecs = map[string]func() kgo.CompressionCodec{
	"none":   kgo.NoCompression,
	"gzip":   kgo.GzipCompression,
	"snappy": kgo.SnappyCompression,
	"lz4":    kgo.Lz4Compression,
	"zstd":   kgo.ZstdCompression,
}

var codecNames = []string{"none", "gzip", "snappy", "lz4", "zstd"}

type producer struct {
	client *kgo.Client
	mu     sync.Mutex
	places []steps.Place
	failed error
}

func (c *client) Producer(codec string) (steps.Producer, error) {
	base, err := kgo.NewClient(c.options(
		kgo.ProducerBatchCompression(codecs[codec]()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(20*time.Millisecond),
	)...)
	if err != nil {
		return nil, err
	}
	return &producer{client: base}, nil
}

func (p *producer) Send(topic string, record steps.Record) error {
	one := &kgo.Record{
		Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value,
		Timestamp: time.UnixMilli(record.Timestamp),
	}
	for _, header := range record.Headers {
		one.Headers = append(one.Headers, kgo.RecordHeader{Key: header.Key, Value: []byte(header.Value)})
	}
	p.mu.Lock()
	at := len(p.places)
	p.places = append(p.places, steps.Place{})
	p.mu.Unlock()
	p.client.Produce(context.Background(), one, func(done *kgo.Record, err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.failed = errors.Join(p.failed, err)
		p.places[at] = steps.Place{Partition: done.Partition, Offset: done.Offset}
	})
	return nil
}

func (p *producer) Flush() ([]steps.Place, error) {
	ctx, cancel := limited()
	defer cancel()
	if err := p.client.Flush(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	places, failed := p.places, p.failed
	p.places, p.failed = nil, nil
	return places, failed
}

func (p *producer) Close() error {
	p.client.Close()
	return nil
}

type consumer struct {
	owner        *client
	client       *kgo.Client
	topic, group string
	mu           sync.Mutex
	assigned     map[int32]bool
}

func (c *client) Consumer(topic, group string) (steps.Consumer, error) {
	own := &consumer{owner: c, topic: topic, group: group, assigned: map[int32]bool{}}
	if group == "" {
		starts := map[int32]kgo.Offset{}
		for partition := range int32(4) {
			starts[partition] = kgo.NewOffset().AtStart()
			own.assigned[partition] = true
		}
		return own, own.readFrom(starts)
	}
	base, err := kgo.NewClient(c.options(
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(own.change(true)),
		kgo.OnPartitionsRevoked(own.change(false)),
		kgo.OnPartitionsLost(own.change(false)))...)
	own.client = base
	return own, err
}

// readFrom begins, or begins anew, to read the partitions without a group.
func (c *consumer) readFrom(starts map[int32]kgo.Offset) error {
	if c.client != nil {
		c.client.Close()
	}
	base, err := kgo.NewClient(c.owner.options(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: starts}))...)
	c.client = base
	return err
}

// change gives the callback that keeps the assignment.
func (c *consumer) change(assigned bool) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, partition := range partitions[c.topic] {
			if assigned {
				c.assigned[partition] = true
			} else {
				delete(c.assigned, partition)
			}
		}
	}
}

func (c *consumer) Assignment() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var partitions []int32
	for partition := range c.assigned {
		partitions = append(partitions, partition)
	}
	return partitions
}

func (c *consumer) Poll(wait time.Duration) ([]steps.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	fetches := c.client.PollFetches(ctx)
	for _, failure := range fetches.Errors() {
		// A lost session is told once while the library joins again by itself.
		var session *kgo.ErrGroupSession
		if !errors.Is(failure.Err, context.DeadlineExceeded) && !errors.As(failure.Err, &session) {
			return nil, fmt.Errorf("fetch of partition %d: %w", failure.Partition, failure.Err)
		}
	}
	var got []steps.Record
	fetches.EachRecord(func(record *kgo.Record) {
		one := steps.Record{
			Key: record.Key, Value: record.Value, Timestamp: record.Timestamp.UnixMilli(),
			Partition: record.Partition, Offset: record.Offset,
			Codec: codecNames[record.Attrs.CompressionType()],
		}
		for _, header := range record.Headers {
			one.Headers = append(one.Headers, steps.Header{Key: header.Key, Value: string(header.Value)})
		}
		got = append(got, one)
	})
	return got, nil
}

func (c *consumer) Commit(places map[int32]int64) error {
	ctx, cancel := limited()
	defer cancel()
	offsets := map[int32]kgo.EpochOffset{}
	for partition, offset := range places {
		offsets[partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	var failed error
	c.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: offsets}, commitResult(&failed))
	return failed
}

// commitResult gives the callback that takes the error of a commit: of the request, or of any partition in it.
func commitResult(failed *error) func(*kgo.Client, *kmsg.OffsetCommitRequest, *kmsg.OffsetCommitResponse, error) {
	return func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		*failed = err
		if err != nil {
			return
		}
		for _, topic := range answer.Topics {
			for _, partition := range topic.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					*failed = errors.Join(*failed, fmt.Errorf("partition %d: %w", partition.Partition, err))
				}
			}
		}
	}
}

func (c *consumer) Committed() (map[int32]int64, error) {
	ctx, cancel := limited()
	defer cancel()
	answer, err := c.owner.admin.FetchOffsets(ctx, c.group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	places := map[int32]int64{}
	answer.Offsets().Each(func(offset kadm.Offset) {
		if offset.Topic == c.topic && offset.At >= 0 {
			places[offset.Partition] = offset.At
		}
	})
	return places, answer.Error()
}

func (c *consumer) OffsetsForTime(milliseconds int64) (map[int32]int64, error) {
	ctx, cancel := limited()
	defer cancel()
	answer, err := c.owner.admin.ListOffsetsAfterMilli(ctx, milliseconds, c.topic)
	if err != nil {
		return nil, err
	}
	places := map[int32]int64{}
	answer.Each(func(offset kadm.ListedOffset) {
		err = errors.Join(err, offset.Err)
		// Where nothing lies after that time the library fills in the end, with no timestamp.
		if offset.Timestamp != -1 {
			places[offset.Partition] = offset.Offset
		}
	})
	return places, err
}

func (c *consumer) Seek(places map[int32]int64) error {
	starts := map[int32]kgo.Offset{}
	for partition, offset := range places {
		starts[partition] = kgo.NewOffset().At(offset)
	}
	return c.readFrom(starts)
}

func (c *consumer) Close() error {
	c.client.Close()
	return nil
}
