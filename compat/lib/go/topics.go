package steps

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func (r *run) metadata() error {
	brokers, topics, err := r.client.Metadata()
	if err != nil {
		return err
	}
	port := r.bootstrap[strings.LastIndex(r.bootstrap, ":"):]
	if !slices.ContainsFunc(brokers, func(b string) bool { return strings.HasSuffix(b, port) }) {
		return fmt.Errorf("no broker with port %s among %v", port, brokers)
	}
	if _, there := topics[r.name("none")]; there {
		return errors.New("lists a topic that nobody made")
	}
	return nil
}

// awaitPartitions waits until metadata shows the topic with that many partitions, 0 meaning not at all.
func (r *run) awaitPartitions(topic string, count int) error {
	var last int
	var failure error
	holds := func() bool {
		_, topics, err := r.client.Metadata()
		last, failure = topics[topic], err
		return err == nil && last == count
	}
	return until(holds, pause, func() string {
		return fmt.Sprintf("metadata says %d partitions instead of %d (%v)", last, count, failure)
	})
}

func (r *run) create() error {
	topic := r.name("create")
	if err := r.client.Create(topic, partitions, map[string]string{"retention.ms": "86400000"}); err != nil {
		return err
	}
	if err := r.awaitPartitions(topic, partitions); err != nil {
		return err
	}
	config, err := r.client.Config(topic)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if config["retention.ms"] != "86400000" {
		return fmt.Errorf("retention.ms is described as %q", config["retention.ms"])
	}
	if err := r.client.Create(topic, partitions, nil); !errors.Is(err, ErrExists) {
		return fmt.Errorf("a second creation was not refused: %v", err)
	}
	return nil
}

func (r *run) delete() error {
	topic := r.name("delete")
	if err := r.client.Create(topic, partitions, nil); err != nil {
		return err
	}
	if _, err := r.send(topic, r.records(20, "r"), "none"); err != nil {
		return err
	}
	if err := r.client.Delete(topic); err != nil {
		return err
	}
	if err := r.awaitPartitions(topic, 0); err != nil {
		return err
	}
	if err := r.client.Delete(topic); !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("a second deletion was not refused: %v", err)
	}
	return nil
}

// send produces a batch and waits for its acknowledgement.
func (r *run) send(topic string, batch []Record, codec string) (places []Place, err error) {
	producer, err := r.client.Producer(codec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	for _, record := range batch {
		if err := producer.Send(topic, record); err != nil {
			return nil, err
		}
	}
	return producer.Flush()
}

func (r *run) produceWith(codec string) error {
	topic := r.name(codec)
	if err := r.client.Create(topic, partitions, nil); err != nil {
		return err
	}
	batch := r.records(recordCount, "r")
	places, err := r.send(topic, batch, codec)
	if err != nil {
		return err
	}
	if len(places) != len(batch) {
		return fmt.Errorf("%d records sent, %d acknowledged", len(batch), len(places))
	}
	following := map[int32]int64{}
	for i, place := range places {
		if place.Partition != batch[i].Partition {
			return fmt.Errorf("sent to partition %d, acknowledged in %d", batch[i].Partition, place.Partition)
		}
		if place.Offset != following[place.Partition] {
			return fmt.Errorf("acknowledged offset %d instead of %d", place.Offset, following[place.Partition])
		}
		following[place.Partition]++
	}
	r.produced = append(r.produced, produced{codec, topic, batch})
	return nil
}

// read polls until count records are there, then once more, so that a record too many shows.
func read(consumer Consumer, count int) ([]Record, error) {
	var got []Record
	poll := func(wait time.Duration) error {
		more, err := consumer.Poll(wait)
		got = append(got, more...)
		return err
	}
	err := until(func() bool { return len(got) >= count },
		func() error { return poll(500 * time.Millisecond) },
		func() string { return fmt.Sprintf("read %d of %d records", len(got), count) })
	if err != nil {
		return got, err
	}
	return got, poll(300 * time.Millisecond)
}

func (r *run) readAll(topic string, count int) (got []Record, err error) {
	consumer, err := r.client.Consumer(topic, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	return read(consumer, count)
}

func (r *run) consumeStart() error {
	if len(r.produced) == 0 {
		return errors.New("nothing was produced")
	}
	for _, p := range r.produced {
		got, err := r.readAll(p.topic, len(p.batch))
		if err == nil {
			err = checkEqual(p.batch, got)
		}
		if err == nil {
			err = checkCodec(p.codec, got)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.codec, err)
		}
	}
	return nil
}

// consumeTimestamp looks offsets up in every codec's topic, so that the broker must look inside compressed batches.
func (r *run) consumeTimestamp() error {
	if len(r.produced) == 0 {
		return errors.New("nothing was produced")
	}
	for _, p := range r.produced {
		if err := r.lookUp(p); err != nil {
			return fmt.Errorf("%s: %w", p.codec, err)
		}
	}
	return nil
}

func (r *run) lookUp(p produced) (err error) {
	consumer, err := r.client.Consumer(p.topic, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	middle := r.firstTimestamp + recordCount/2*timestampStep
	var offsets map[int32]int64
	for _, at := range []int64{middle, middle + 1} {
		wanted := map[int32]int64{}
		for partition, records := range byPartition(p.batch) {
			wanted[partition] = int64(slices.IndexFunc(records, func(one Record) bool { return one.Timestamp >= at }))
		}
		if offsets, err = consumer.OffsetsForTime(at); err != nil {
			return err
		}
		if !maps.Equal(offsets, wanted) {
			return fmt.Errorf("offsets for %d are %v instead of %v", at, offsets, wanted)
		}
	}
	// The loop's last answer is for the later time, which no record has exactly.
	var later []Record
	for _, record := range p.batch {
		if record.Timestamp > middle {
			later = append(later, record)
		}
	}
	if err := consumer.Seek(offsets); err != nil {
		return err
	}
	got, err := read(consumer, len(later))
	if err != nil {
		return err
	}
	if !slices.Equal(numbers(got), numbers(later)) {
		return fmt.Errorf("read %d records from the timestamp on instead of %d", len(got), len(later))
	}
	after, err := consumer.OffsetsForTime(r.firstTimestamp + 2*recordCount*timestampStep)
	if err != nil {
		return err
	}
	if len(after) != 0 {
		return fmt.Errorf("offsets after the last record: %v", after)
	}
	return nil
}
