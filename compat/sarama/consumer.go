package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"anabranch/compat/steps"

	"github.com/IBM/sarama"
)

const partitions = 4

// common is what a reader without a group and a member of one share.
type common struct {
	owner        *client
	topic, group string
	messages     chan *sarama.ConsumerMessage
}

func (c *common) Poll(wait time.Duration) ([]steps.Record, error) {
	var got []steps.Record
	first := time.After(wait)
	for {
		select {
		case message := <-c.messages:
			got = append(got, record(message))
			continue
		default:
		}
		if len(got) > 0 {
			return got, nil
		}
		select {
		case message := <-c.messages:
			got = append(got, record(message))
		case <-first:
			return nil, nil
		}
	}
}

func record(message *sarama.ConsumerMessage) steps.Record {
	one := steps.Record{
		Key: message.Key, Value: message.Value, Timestamp: message.Timestamp.UnixMilli(),
		Partition: message.Partition, Offset: message.Offset,
	}
	for _, header := range message.Headers {
		one.Headers = append(one.Headers, steps.Header{Key: string(header.Key), Value: string(header.Value)})
	}
	return one
}

func (c *common) OffsetsForTime(milliseconds int64) (map[int32]int64, error) {
	places := map[int32]int64{}
	for partition := range int32(partitions) {
		offset, err := c.owner.base.GetOffset(c.topic, partition, milliseconds)
		if err != nil {
			return nil, err
		}
		if offset >= 0 {
			places[partition] = offset
		}
	}
	return places, nil
}

func (c *common) Committed() (map[int32]int64, error) {
	answer, err := c.owner.admin.ListConsumerGroupOffsets(c.group, map[string][]int32{c.topic: {0, 1, 2, 3}})
	if err != nil {
		return nil, err
	}
	places := map[int32]int64{}
	for partition := range int32(partitions) {
		block := answer.GetBlock(c.topic, partition)
		if block == nil {
			return nil, fmt.Errorf("no answer for partition %d", partition)
		}
		if !errors.Is(block.Err, sarama.ErrNoError) {
			return nil, block.Err
		}
		if block.Offset >= 0 {
			places[partition] = block.Offset
		}
	}
	return places, nil
}

// reader reads every partition without a group.
type reader struct {
	common
	base  sarama.Consumer
	parts []sarama.PartitionConsumer
}

func newReader(base common) (*reader, error) {
	consumer, err := sarama.NewConsumer(base.owner.bootstrap, config())
	if err != nil {
		return nil, err
	}
	r := &reader{common: base, base: consumer}
	starts := map[int32]int64{}
	for partition := range int32(partitions) {
		starts[partition] = sarama.OffsetOldest
	}
	return r, r.readFrom(starts)
}

func (r *reader) readFrom(starts map[int32]int64) error {
	for partition, offset := range starts {
		part, err := r.base.ConsumePartition(r.topic, partition, offset)
		if err != nil {
			return err
		}
		r.parts = append(r.parts, part)
		go func(messages chan *sarama.ConsumerMessage) {
			for message := range part.Messages() {
				messages <- message
			}
		}(r.messages)
	}
	return nil
}

func (r *reader) stop() error {
	var failed error
	for _, part := range r.parts {
		failed = errors.Join(failed, part.Close())
	}
	r.parts = nil
	return failed
}

// Seek leaves what was read before it to the channel that nobody reads any more.
func (r *reader) Seek(places map[int32]int64) error {
	if err := r.stop(); err != nil {
		return err
	}
	r.messages = make(chan *sarama.ConsumerMessage, cap(r.messages))
	return r.readFrom(places)
}

func (r *reader) Assignment() []int32 { return []int32{0, 1, 2, 3} }

func (r *reader) Commit(map[int32]int64) error {
	return errors.New("a reader without a group has nothing to commit to")
}

func (r *reader) Close() error {
	return errors.Join(r.stop(), r.base.Close())
}

// member is one consumer of a group. The library calls it for each session, which a rebalance ends.
type member struct {
	common
	base    sarama.ConsumerGroup
	end     context.CancelFunc
	done    chan struct{}
	mu      sync.Mutex
	session sarama.ConsumerGroupSession // nil between sessions
}

func newMember(base common) (*member, error) {
	group, err := sarama.NewConsumerGroup(base.owner.bootstrap, base.group, config())
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	m := &member{common: base, base: group, end: end, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			// Consume ends at every rebalance, and with an error while the broker is away.
			if err := group.Consume(ctx, []string{m.topic}, m); err != nil {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return m, nil
}

func (m *member) hold(session sarama.ConsumerGroupSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = session
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.hold(session)
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.hold(nil)
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, more := <-claim.Messages():
			if !more {
				return nil
			}
			m.messages <- message
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) Assignment() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return nil
	}
	return m.session.Claims()[m.topic]
}

// Commit has no answer of its own in this library; the steps read back what was committed.
func (m *member) Commit(places map[int32]int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return errors.New("the member is in no session")
	}
	for partition, offset := range places {
		m.session.MarkOffset(m.topic, partition, offset, "")
	}
	m.session.Commit()
	return nil
}

func (m *member) Seek(map[int32]int64) error {
	return errors.New("a member of a group is not moved")
}

func (m *member) Close() error {
	m.end()
	err := m.base.Close()
	<-m.done
	return err
}
