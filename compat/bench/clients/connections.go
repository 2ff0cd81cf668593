package main

import (
	"context"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const recordBytes = 1024

// connections keeps so many producers open, each of which sends a record a second and waits for its acknowledgement.
func connections(ctx context.Context, bootstrap, topic string, count int, lasting time.Duration) {
	clients := make([]*kgo.Client, count)
	var opening sync.WaitGroup
	for at := range clients {
		one := client(bootstrap, kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0), kgo.DisableIdempotentWrite(),
			kgo.RequiredAcks(kgo.LeaderAck()))
		clients[at] = one
		opening.Go(func() { send(ctx, one) })
		// A client connects, asks for the topic and writes; all at once would measure the listener's queue.
		if at%50 == 49 {
			opening.Wait()
		}
	}
	opening.Wait()

	var mutex sync.Mutex
	var delays []time.Duration
	var working sync.WaitGroup
	began := time.Now()
	for _, client := range clients {
		working.Go(func() {
			time.Sleep(rand.N(time.Second))
			var mine []time.Duration
			for time.Since(began) < lasting {
				sent := time.Now()
				send(ctx, client)
				took := time.Since(sent)
				mine = append(mine, took)
				time.Sleep(time.Second - took)
			}
			mutex.Lock()
			delays = append(delays, mine...)
			mutex.Unlock()
		})
	}
	working.Wait()
	spent := time.Since(began).Seconds()
	for _, client := range clients {
		client.Close()
	}
	tell(delays, map[string]any{"records_per_second": float64(len(delays)) / spent})
}

func send(ctx context.Context, client *kgo.Client) {
	if err := client.ProduceSync(ctx, &kgo.Record{Value: make([]byte, recordBytes)}).FirstErr(); err != nil {
		log.Fatal(err)
	}
}
