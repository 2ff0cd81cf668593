package main

import (
	"context"
	"encoding/binary"
	"io"
	"log"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// How long what was sent may take to arrive before the load has failed.
const patience = 60 * time.Second

// So many records wait in the producer before it holds up the next: more than a broker can fall behind in a run.
const buffered = 1_000_000

// How long the bare socket is measured.
const bareLasting = 2 * time.Second

// latency sends records at a fixed rate, evenly paced, and reads them again: a producer and a consumer with their own
// connections in one process, so that one clock tells how long each record was under way, from before it is given to the
// producer until the consumer has it. A rate of nothing sends one record at a time: the next when the last has arrived.
// What is sent while it warms is not counted.
func latency(ctx context.Context, bootstrap, topic string, rate int, warm, lasting time.Duration) {
	uncollected()
	producer := client(bootstrap, kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(buffered))
	consumer := client(bootstrap, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer producer.Close()
	defer consumer.Close()

	flight := newFlight(rate, warm, lasting)
	go func() {
		for {
			fetches := consumer.PollFetches(ctx)
			if fetches.IsClientClosed() {
				return
			}
			for _, failure := range fetches.Errors() {
				log.Fatal(failure.Err)
			}
			arrived := flight.clock()
			fetches.EachRecord(func(record *kgo.Record) { flight.landed(record.Value, arrived) })
		}
	}()
	sent := flight.send(func(value []byte) {
		producer.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) { check(err) })
	})
	more := map[string]any{"records": sent, "late_p99_ms": milliseconds(flight.late, 0.99)}
	bare := bareSocket(rate)
	more["bare_p50_ms"], more["bare_p99_ms"] = milliseconds(bare, 0.5), milliseconds(bare, 0.99)
	tell(flight.delays, more)
}

// bareSocket is the same load without a broker: from one goroutine to another over a loopback connection. What it takes
// is what the generator, the socket and the machine add to every broker's delay.
func bareSocket(rate int) []time.Duration {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	to, err := net.Dial("tcp", listener.Addr().String())
	check(err)
	from, err := listener.Accept()
	check(err)
	flight := newFlight(rate, 0, bareLasting)
	go func() {
		for value := make([]byte, recordBytes); ; {
			if _, err := io.ReadFull(from, value); err != nil {
				log.Fatal(err)
			}
			flight.landed(value, flight.clock())
		}
	}()
	flight.send(func(value []byte) {
		_, err := to.Write(value)
		check(err)
	})
	return flight.delays
}

// flight is what one run has under way and what it took. Values begin with the time on its clock when they were sent.
type flight struct {
	began         time.Time
	rate          int
	warm, lasting time.Duration
	arrived       atomic.Int64
	next          chan struct{}
	delays, late  []time.Duration
}

func newFlight(rate int, warm, lasting time.Duration) *flight {
	return &flight{began: time.Now(), rate: rate, warm: warm, lasting: lasting, next: make(chan struct{}, 1)}
}

func (f *flight) clock() time.Duration { return time.Since(f.began) }

// landed is called by the one reader for every value.
func (f *flight) landed(value []byte, arrived time.Duration) {
	if sent := time.Duration(binary.BigEndian.Uint64(value)); sent >= f.warm {
		f.delays = append(f.delays, arrived-sent)
	}
	f.arrived.Add(1)
	if f.rate == 0 {
		f.next <- struct{}{}
	}
}

// send makes the load, waits until all of it has arrived, and says how many records it was.
func (f *flight) send(give func([]byte)) int64 {
	var sent int64
	pace := pacer()
	for {
		due := f.clock()
		if f.rate > 0 {
			due = time.Duration(sent) * time.Second / time.Duration(f.rate)
			pace(due - f.clock())
		}
		if due >= f.warm+f.lasting {
			break
		}
		value := make([]byte, recordBytes)
		now := f.clock()
		if now >= f.warm {
			f.late = append(f.late, now-due)
		}
		binary.BigEndian.PutUint64(value, uint64(now))
		give(value)
		sent++
		if f.rate == 0 {
			select {
			case <-f.next:
			case <-time.After(patience):
				log.Fatal("a record has not arrived")
			}
		}
	}
	for until := time.Now().Add(patience); f.arrived.Load() < sent; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			log.Fatalf("%d of %d records have arrived", f.arrived.Load(), sent)
		}
	}
	return sent
}

// pacer sleeps to within some microseconds, in a thread of its own. The runtime's timers wait for whole milliseconds when
// nothing else is to be done, which would send ten records at once where one is due ten times.
func pacer() func(time.Duration) {
	runtime.LockOSThread()
	const timerSlack = 29
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, timerSlack, 1, 0); errno != 0 {
		log.Fatal(errno)
	}
	return func(left time.Duration) {
		if left > 0 {
			wait := syscall.NsecToTimespec(int64(left))
			// A signal may end it early: the record is then sent that much too early.
			_ = syscall.Nanosleep(&wait, nil)
		}
	}
}
