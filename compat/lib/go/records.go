package steps

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
)

// records makes records of every shape, spread over the partitions; the header n numbers them.
func (r *run) records(count int, label string) []Record {
	made := make([]Record, 0, count)
	for n := range count {
		record := Record{
			Headers:   []Header{{"n", fmt.Sprintf("%s%d", label, n)}},
			Timestamp: r.firstTimestamp + int64(n)*timestampStep,
			Partition: int32(n % partitions),
		}
		if n%50 != 7 {
			record.Key = fmt.Appendf(nil, "%s-%d", label, n)
		}
		if n%50 != 13 {
			value := make([]byte, 0, 1600)
			for i := range (n * 37) % 1500 {
				value = append(value, byte((n*7+i)%251))
			}
			record.Value = append(value, bytes.Repeat([]byte("x"), n%90)...)
		}
		if n%5 == 0 {
			record.Headers = append(record.Headers, Header{"empty", ""}, Header{"twice", "\x00\xff"}, Header{"twice", "b"})
		}
		made = append(made, record)
	}
	return made
}

func number(record Record) string {
	for _, header := range record.Headers {
		if header.Key == "n" {
			return header.Value
		}
	}
	return "?"
}

func numbers(records []Record) []string {
	all := make([]string, 0, len(records))
	for _, record := range records {
		all = append(all, number(record))
	}
	sort.Strings(all)
	return all
}

func short(r Record) string {
	size := "null"
	if r.Value != nil {
		size = fmt.Sprintf("%d bytes", len(r.Value))
	}
	key := "null"
	if r.Key != nil {
		key = fmt.Sprintf("%q", r.Key)
	}
	return fmt.Sprintf("[%d@%d key=%s value=%s headers=%q timestamp=%d]", r.Partition, r.Offset, key, size, r.Headers, r.Timestamp)
}

func same(sent, got Record) bool {
	return bytes.Equal(sent.Key, got.Key) && (sent.Key == nil) == (got.Key == nil) &&
		bytes.Equal(sent.Value, got.Value) && (sent.Value == nil) == (got.Value == nil) &&
		slices.Equal(sent.Headers, got.Headers) && sent.Timestamp == got.Timestamp
}

func byPartition(records []Record) map[int32][]Record {
	split := map[int32][]Record{}
	for _, record := range records {
		split[record.Partition] = append(split[record.Partition], record)
	}
	return split
}

// checkEqual: got holds exactly what was sent, in order within each partition, at offsets without a gap.
func checkEqual(sent, got []Record) error {
	if len(got) != len(sent) {
		return fmt.Errorf("sent %d records and read %d", len(sent), len(got))
	}
	read := byPartition(got)
	for partition, expected := range byPartition(sent) {
		if len(read[partition]) != len(expected) {
			return fmt.Errorf("sent %d records to partition %d and read %d", len(expected), partition, len(read[partition]))
		}
		for i, record := range expected {
			other := read[partition][i]
			if other.Offset != int64(i) {
				return fmt.Errorf("partition %d has offset %d at place %d", partition, other.Offset, i)
			}
			if !same(record, other) {
				return fmt.Errorf("sent %s and read %s", short(record), short(other))
			}
		}
	}
	return nil
}

// checkCodec: where the client tells how batches were compressed, some were with the codec and none with another.
func checkCodec(codec string, got []Record) error {
	with := 0
	for _, record := range got {
		switch record.Codec {
		case "":
			return nil
		case codec:
			with++
		case "none":
		default:
			return fmt.Errorf("sent with %s and stored with %s", codec, record.Codec)
		}
	}
	if with == 0 {
		return fmt.Errorf("sent with %s and stored without", codec)
	}
	return nil
}
