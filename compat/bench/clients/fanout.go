package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"anabranch/compat/lib/ownbody"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// Puts a second; each carries its share of the records.
const putsPerSecond = 100

// Small, since the SDK would take more than a processor to decode 50 times a megabyte a second.
const fanOutBytes = 100

// fanOut puts records at a fixed rate and subscribes so many registered consumers to every shard. A record carries the
// moment before its put; its delay ends when a consumer has the event that brings it.
func fanOut(ctx context.Context, endpoint, stream string, consumers, rate int, lasting time.Duration) {
	uncollected()
	client := kinesis.New(kinesis.Options{
		HTTPClient:   ownbody.Client(),
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("bench", "bench", ""),
	})
	// An on-demand stream has 20 consumers at most, and 50 only with this.
	_, err := client.UpdateAccountSettings(ctx, &kinesis.UpdateAccountSettingsInput{
		MinimumThroughputBillingCommitment: &types.MinimumThroughputBillingCommitmentInput{
			Status: types.MinimumThroughputBillingCommitmentInputStatusEnabled}})
	check(err)
	described, err := client.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &stream})
	check(err)
	listed, err := client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &stream})
	check(err)
	var readers []*reader
	for at := range consumers {
		consumer := register(ctx, client, *described.StreamDescriptionSummary.StreamARN, fmt.Sprintf("consumer-%d", at))
		for _, shard := range listed.Shards {
			subscribed, err := client.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
				ConsumerARN: &consumer, ShardId: shard.ShardId,
				StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeLatest},
			})
			check(err)
			readers = append(readers, &reader{events: subscribed.GetStream()})
		}
	}
	var delivered atomic.Int64
	var reading sync.WaitGroup
	for _, one := range readers {
		reading.Go(func() { one.follow(&delivered) })
	}
	put := puts(ctx, client, stream, rate, lasting)
	due := int64(put) * int64(consumers)
	for deadline := time.Now().Add(30 * time.Second); delivered.Load() < due && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	for _, one := range readers {
		// A subscription that has ended by itself is a failure, whatever was delivered before.
		if err := one.events.Err(); err != nil {
			log.Fatal(err)
		}
		one.events.Close()
	}
	reading.Wait()
	var delays []time.Duration
	for _, one := range readers {
		delays = append(delays, one.delays...)
	}
	tell(delays, map[string]any{"delivered": delivered.Load(), "due": due})
}

func register(ctx context.Context, client *kinesis.Client, stream, name string) string {
	registered, err := client.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{
		StreamARN: &stream, ConsumerName: &name})
	check(err)
	arn := registered.Consumer.ConsumerARN
	for {
		described, err := client.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{ConsumerARN: arn})
		check(err)
		if described.ConsumerDescription.ConsumerStatus == types.ConsumerStatusActive {
			return *arn
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// puts returns how many records it has put.
func puts(ctx context.Context, client *kinesis.Client, stream string, rate int, lasting time.Duration) int {
	put, began := 0, time.Now()
	for ticker := time.NewTicker(time.Second / putsPerSecond); time.Since(began) < lasting; <-ticker.C {
		var records []types.PutRecordsRequestEntry
		for due := int(time.Since(began).Seconds() * float64(rate)); put+len(records) < due && len(records) < 500; {
			data := make([]byte, fanOutBytes)
			binary.BigEndian.PutUint64(data, uint64(time.Now().UnixNano()))
			records = append(records, types.PutRecordsRequestEntry{
				Data: data, PartitionKey: aws.String(fmt.Sprint(put + len(records)))})
		}
		if len(records) == 0 {
			continue
		}
		answer, err := client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &stream, Records: records})
		check(err)
		if *answer.FailedRecordCount > 0 {
			log.Fatalf("%d records were refused", *answer.FailedRecordCount)
		}
		put += len(records)
	}
	return put
}

type reader struct {
	events *kinesis.SubscribeToShardEventStream
	delays []time.Duration
}

func (r *reader) follow(delivered *atomic.Int64) {
	for event := range r.events.Events() {
		arrived := time.Now().UnixNano()
		one, ok := event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !ok {
			continue
		}
		for _, record := range one.Value.Records {
			put := int64(binary.BigEndian.Uint64(record.Data))
			r.delays = append(r.delays, time.Duration(arrived-put))
		}
		delivered.Add(int64(len(one.Value.Records)))
	}
}
