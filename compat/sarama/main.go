// Runs sarama, the older of Go's Kafka clients, through the steps of ../lib/go. Its protocol version stays at
// the library's default.
package main

import (
	"errors"
	"time"

	"anabranch/compat/steps"

	"github.com/IBM/sarama"
)

func main() {
	steps.Run(func(bootstrap string) (steps.Client, error) {
		c := &client{bootstrap: []string{bootstrap}}
		var err error
		if c.base, err = sarama.NewClient(c.bootstrap, config()); err != nil {
			return nil, err
		}
		c.admin, err = sarama.NewClusterAdminFromClient(c.base)
		return c, err
	})
}

type client struct {
	bootstrap []string
	base      sarama.Client
	admin     sarama.ClusterAdmin
}

// config gives the library's defaults, with retries that outlast a restart of the broker and waits that suit a test.
func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Metadata.Retry.Max = 200
	config.Metadata.Retry.Backoff = 100 * time.Millisecond
	config.Metadata.RefreshFrequency = time.Second
	config.Producer.Retry.Max = 300
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Consumer.Retry.Backoff = 100 * time.Millisecond
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	return config
}

func (c *client) Name() string    { return "sarama" }
func (c *client) Version() string { return steps.ModuleVersion("github.com/IBM/sarama") }
func (c *client) Codecs() []string {
	return []string{"none", "gzip", "snappy", "lz4", "zstd"}
}

func (c *client) Metadata() ([]string, map[string]int, error) {
	described, _, err := c.admin.DescribeCluster()
	if err != nil {
		return nil, nil, err
	}
	var brokers []string
	for _, broker := range described {
		brokers = append(brokers, broker.Addr())
	}
	listed, err := c.admin.ListTopics()
	if err != nil {
		return nil, nil, err
	}
	topics := map[string]int{}
	for name, topic := range listed {
		topics[name] = int(topic.NumPartitions)
	}
	return brokers, topics, nil
}

func (c *client) Create(topic string, partitions int32, config map[string]string) error {
	entries := map[string]*string{}
	for key, value := range config {
		entries[key] = &value
	}
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}
	err := c.admin.CreateTopic(topic, detail, false)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return steps.ErrExists
	}
	return err
}

func (c *client) Config(topic string) (map[string]string, error) {
	entries, err := c.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for _, entry := range entries {
		config[entry.Name] = entry.Value
	}
	return config, nil
}

func (c *client) Delete(topic string) error {
	err := c.admin.DeleteTopic(topic)
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return steps.ErrUnknown
	}
	return err
}

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

type producer struct {
	base sarama.AsyncProducer
	sent int
}

func (c *client) Producer(codec string) (steps.Producer, error) {
	config := config()
	config.Producer.Compression = codecs[codec]
	// What was sent is acknowledged while nobody reads the answers, until Flush does.
	config.ChannelBufferSize = 4096
	base, err := sarama.NewAsyncProducer(c.bootstrap, config)
	return &producer{base: base}, err
}

func (p *producer) Send(topic string, record steps.Record) error {
	message := &sarama.ProducerMessage{
		Topic: topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.Timestamp), Metadata: p.sent,
	}
	if record.Key != nil {
		message.Key = sarama.ByteEncoder(record.Key)
	}
	if record.Value != nil {
		message.Value = sarama.ByteEncoder(record.Value)
	}
	for _, header := range record.Headers {
		message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: []byte(header.Value)})
	}
	p.base.Input() <- message
	p.sent++
	return nil
}

func (p *producer) Flush() ([]steps.Place, error) {
	places := make([]steps.Place, p.sent)
	var failed error
	limit := time.After(60 * time.Second)
	for range p.sent {
		select {
		case done := <-p.base.Successes():
			places[done.Metadata.(int)] = steps.Place{Partition: done.Partition, Offset: done.Offset}
		case err := <-p.base.Errors():
			failed = errors.Join(failed, err)
		case <-limit:
			return nil, errors.New("not everything was acknowledged within 60 s")
		}
	}
	p.sent = 0
	return places, failed
}

func (p *producer) Close() error {
	p.base.AsyncClose()
	return nil
}

func (c *client) Consumer(topic, group string) (steps.Consumer, error) {
	base := common{owner: c, topic: topic, group: group, messages: make(chan *sarama.ConsumerMessage, 4096)}
	if group == "" {
		return newReader(base)
	}
	return newMember(base)
}
