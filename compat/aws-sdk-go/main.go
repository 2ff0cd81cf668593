// The AWS SDK for Go v2 on the protocol of ../lib/kinesis-steps/bridge.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"time"

	"anabranch/compat/lib/ownbody"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

// The line that the longest request needs: 500 records of 10 kB in base64 and more.
const lineBytesMax = 64 << 20

type request struct {
	ID         int                        `json:"id"`
	Retry      bool                       `json:"retry"`
	Operation  string                     `json:"operation"`
	Parameters map[string]json.RawMessage `json:"parameters"`
}

func client(attempts int) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		HTTPClient:   ownbody.Client(),
		Region:       "us-east-1",
		BaseEndpoint: aws.String(os.Getenv("KINESIS")),
		Credentials:  credentials.NewStaticCredentialsProvider("compat", "compat", ""),
		Retryer:      retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = attempts }),
	})
}

// answers writes a line each, from several requests at once.
type answers struct {
	sync.Mutex
	lines *json.Encoder
}

func (a *answers) say(message map[string]any) {
	a.Lock()
	defer a.Unlock()
	if err := a.lines.Encode(message); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var moment = reflect.TypeFor[time.Time]()

// fill sets a field of the SDK's input from JSON with AWS's names; encoding/json does all but timestamps.
func fill(into reflect.Value, from json.RawMessage) error {
	switch {
	case into.Kind() == reflect.Pointer && into.Type().Elem() == moment:
		var seconds float64
		if err := json.Unmarshal(from, &seconds); err != nil {
			return err
		}
		at := time.UnixMicro(int64(seconds * 1e6))
		into.Set(reflect.ValueOf(&at))
		return nil
	case into.Kind() == reflect.Pointer && into.Type().Elem().Kind() == reflect.Struct:
		into.Set(reflect.New(into.Type().Elem()))
		return fillStruct(into.Elem(), from)
	default:
		return json.Unmarshal(from, into.Addr().Interface())
	}
}

func fillStruct(into reflect.Value, from json.RawMessage) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(from, &members); err != nil {
		return err
	}
	for name, value := range members {
		field := into.FieldByName(name)
		if !field.IsValid() {
			return fmt.Errorf("%s has no %s", into.Type(), name)
		}
		if err := fill(field, value); err != nil {
			return err
		}
	}
	return nil
}

// plain turns an answer of the SDK into what JSON can hold: timestamps as seconds, absent members left out.
func plain(value reflect.Value) any {
	switch value.Kind() {
	case reflect.Pointer:
		if value.IsNil() {
			return nil
		}
		return plain(value.Elem())
	case reflect.Struct:
		if value.Type() == moment {
			return float64(value.Interface().(time.Time).UnixMilli()) / 1000
		}
		members := map[string]any{}
		for i := range value.NumField() {
			field := value.Type().Field(i)
			if field.IsExported() && field.Name != "ResultMetadata" && !absent(value.Field(i)) {
				members[field.Name] = plain(value.Field(i))
			}
		}
		return members
	case reflect.Slice:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			return value.Bytes()
		}
		all := make([]any, value.Len())
		for i := range all {
			all[i] = plain(value.Index(i))
		}
		return all
	default:
		return value.Interface()
	}
}

func absent(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return value.IsNil()
	case reflect.String:
		return value.Len() == 0
	default:
		return false
	}
}

func call(with *kinesis.Client, r request) (any, error) {
	method := reflect.ValueOf(with).MethodByName(r.Operation)
	if !method.IsValid() {
		return nil, fmt.Errorf("the SDK has no %s", r.Operation)
	}
	input := reflect.New(method.Type().In(1).Elem())
	for name, value := range r.Parameters {
		if err := fill(input.Elem().FieldByName(name), value); err != nil {
			return nil, err
		}
	}
	returned := method.Call([]reflect.Value{reflect.ValueOf(context.Background()), input})
	if err, failed := returned[1].Interface().(error); failed {
		return nil, err
	}
	return returned[0].Interface(), nil
}

func (a *answers) follow(id int, stream *kinesis.SubscribeToShardEventStream) error {
	defer stream.Close()
	for event := range stream.Events() {
		if one, ok := event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent); ok {
			a.say(map[string]any{"id": id, "event": plain(reflect.ValueOf(one.Value))})
		}
	}
	return stream.Err()
}

func (a *answers) answer(with *kinesis.Client, r request) {
	answered, err := call(with, r)
	if subscribed, ok := answered.(*kinesis.SubscribeToShardOutput); ok && err == nil {
		err = a.follow(r.ID, subscribed.GetStream())
		answered = struct{}{}
	}
	var refusal smithy.APIError
	switch {
	case err == nil:
		a.say(map[string]any{"id": r.ID, "answer": plain(reflect.ValueOf(answered))})
	case errors.As(err, &refusal):
		a.say(map[string]any{"id": r.ID, "error": map[string]string{"code": refusal.ErrorCode(), "message": refusal.ErrorMessage()}})
	default:
		a.say(map[string]any{"id": r.ID, "error": map[string]string{"code": "Client", "message": err.Error()}})
	}
}

func main() {
	patient, single := client(12), client(1)
	out := &answers{lines: json.NewEncoder(os.Stdout)}
	out.say(map[string]any{"version": version()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		with := single
		if r.Retry {
			with = patient
		}
		go out.answer(with, r)
	}
}
