package steps

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	stepLimit     = 120 * time.Second
	waitLimit     = 60 * time.Second
	partitions    = 4
	recordCount   = 400
	timestampStep = 1000
)

// skipped is a step's answer when there is nothing to do it with.
type skipped struct{ why string }

func (s skipped) Error() string { return s.why }

type run struct {
	client         Client
	bootstrap      string
	restartCommand string
	id             string
	firstTimestamp int64
	produced       []produced
	failed         bool
}

// produced is what one codec's step left in its topic.
type produced struct {
	codec, topic string
	batch        []Record
}

// Run goes through all steps with the client that open gives, prints their lines and ends the process.
func Run(open func(bootstrap string) (Client, error)) {
	bootstrap := os.Getenv("BOOTSTRAP")
	client, err := open(bootstrap)
	if err != nil {
		fmt.Printf("FAIL metadata: %s\n", oneLine(err))
		os.Exit(1)
	}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	r := &run{
		client:         client,
		bootstrap:      bootstrap,
		restartCommand: os.Getenv("RESTART"),
		id:             hex.EncodeToString(id),
		firstTimestamp: time.Now().UnixMilli() - 3_600_000,
	}
	fmt.Printf("version %s\n", client.Version())
	r.step("metadata", r.metadata)
	r.step("create", r.create)
	for _, codec := range client.Codecs() {
		r.step("produce-"+codec, func() error { return r.produceWith(codec) })
	}
	r.step("consume-start", r.consumeStart)
	r.step("consume-timestamp", r.consumeTimestamp)
	r.step("group", r.group)
	r.step("commit", r.commit)
	r.step("restart", r.restart)
	r.step("delete", r.delete)
	if r.failed {
		os.Exit(1)
	}
	os.Exit(0)
}

// step runs one step and reports it, whatever happens in it.
func (r *run) step(name string, action func() error) {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if panicked := recover(); panicked != nil {
				done <- fmt.Errorf("panic: %v", panicked)
			}
		}()
		done <- action()
	}()
	var err error
	select {
	case err = <-done:
	case <-time.After(stepLimit):
		err = fmt.Errorf("not done within %s", stepLimit)
	}
	var skip skipped
	switch {
	case err == nil:
		fmt.Printf("ok %s\n", name)
	case errors.As(err, &skip):
		fmt.Printf("skip %s: %s\n", name, skip.why)
	default:
		r.failed = true
		fmt.Printf("FAIL %s: %s\n", name, oneLine(err))
	}
}

func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 600 {
		text = text[:600]
	}
	return text
}

// name makes a topic or a group of this run's own.
func (r *run) name(what string) string {
	return r.client.Name() + "-" + what + "-" + r.id
}

// until acts until the condition holds.
func until(condition func() bool, act func() error, what func() string) error {
	end := time.Now().Add(waitLimit)
	for !condition() {
		if time.Now().After(end) {
			return fmt.Errorf("within %s: %s", waitLimit, what())
		}
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

func pause() error {
	time.Sleep(50 * time.Millisecond)
	return nil
}

// killBroker has the broker killed and started again, and returns when it is ready.
func (r *run) killBroker() error {
	fields := strings.Fields(r.restartCommand)
	command := exec.Command(fields[0], append(fields[1:], "kill")...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("the broker did not come back: %w", err)
	}
	return nil
}
