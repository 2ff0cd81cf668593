package steps

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// members are the consumers of one group, polled in turns, with what was delivered to any of them.
type members struct {
	list []Consumer
	got  []Record
}

func (m *members) poll() error {
	for _, member := range m.list {
		more, err := member.Poll(100 * time.Millisecond)
		if err != nil {
			return err
		}
		m.got = append(m.got, more...)
	}
	return nil
}

// shared: every member has some partitions, and together they have each one once.
func (m *members) shared() bool {
	var all []int32
	for _, member := range m.list {
		share := member.Assignment()
		if len(share) == 0 {
			return false
		}
		all = append(all, share...)
	}
	slices.Sort(all)
	return slices.Equal(all, []int32{0, 1, 2, 3})
}

func (m *members) awaitShared() error {
	return until(m.shared, m.poll, func() string {
		shares := ""
		for _, member := range m.list {
			shares += fmt.Sprint(member.Assignment())
		}
		return "the members have " + shares
	})
}

func (m *members) awaitRead(count int) error {
	return until(func() bool { return len(m.got) >= count }, m.poll,
		func() string { return fmt.Sprintf("the members read %d of %d records", len(m.got), count) })
}

func (m *members) close() error {
	var all error
	for _, member := range m.list {
		all = errors.Join(all, member.Close())
	}
	return all
}

func (r *run) group() (err error) {
	topic, group := r.name("group"), r.name("group")
	if err := r.client.Create(topic, partitions, nil); err != nil {
		return err
	}
	var m members
	defer func() { err = errors.Join(err, m.close()) }()
	for range 2 {
		member, err := r.client.Consumer(topic, group)
		if err != nil {
			return err
		}
		m.list = append(m.list, member)
		if err := m.awaitShared(); err != nil {
			return err
		}
	}
	first := r.records(200, "a")
	if _, err := r.send(topic, first, "none"); err != nil {
		return err
	}
	if err := m.awaitRead(len(first)); err != nil {
		return err
	}
	// Both commit what they have read, so that whoever owns a partition afterwards goes on from there.
	read := byPartition(m.got)
	for _, member := range m.list {
		places := map[int32]int64{}
		for _, partition := range member.Assignment() {
			places[partition] = int64(len(read[partition]))
		}
		if err := member.Commit(places); err != nil {
			return err
		}
	}
	leaving := m.list[0]
	m.list = m.list[1:]
	if err := leaving.Close(); err != nil {
		return err
	}
	if err := m.awaitShared(); err != nil {
		return err
	}
	second := r.records(200, "b")
	if _, err := r.send(topic, second, "none"); err != nil {
		return err
	}
	if err := m.awaitRead(len(first) + len(second)); err != nil {
		return err
	}
	if err := m.poll(); err != nil {
		return err
	}
	if !slices.Equal(numbers(m.got), numbers(append(first, second...))) {
		return fmt.Errorf("400 records were delivered as %d", len(m.got))
	}
	return nil
}

// readAndCommit has one member of a new group read the records and commit some places among them.
func (r *run) readAndCommit(topic, group string, count int, places map[int32]int64) (err error) {
	member, err := r.client.Consumer(topic, group)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	before, err := member.Committed()
	if err != nil {
		return err
	}
	if len(before) != 0 {
		return fmt.Errorf("a new group has offsets: %v", before)
	}
	if _, err := read(member, count); err != nil {
		return err
	}
	if err := member.Commit(places); err != nil {
		return err
	}
	return checkCommitted(member, places)
}

func checkCommitted(member Consumer, places map[int32]int64) error {
	committed, err := member.Committed()
	if err != nil {
		return err
	}
	if !maps.Equal(committed, places) {
		return fmt.Errorf("committed %v and read back %v", places, committed)
	}
	return nil
}

// checkResumes: a new member of the group is given exactly what lies after the committed places.
func (r *run) checkResumes(topic, group string, places map[int32]int64, total int) (err error) {
	left := total
	for _, place := range places {
		left -= int(place)
	}
	member, err := r.client.Consumer(topic, group)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	got, err := read(member, left)
	if err != nil {
		return err
	}
	if len(got) != left {
		return fmt.Errorf("%d records lie after the commit, %d were delivered", left, len(got))
	}
	for partition, records := range byPartition(got) {
		for i, record := range records {
			if record.Offset != places[partition]+int64(i) {
				return fmt.Errorf("partition %d was committed at %d and gave offset %d at place %d",
					partition, places[partition], record.Offset, i)
			}
		}
	}
	return checkCommitted(member, places)
}

func (r *run) commit() error {
	topic, group := r.name("commit"), r.name("commit")
	if err := r.client.Create(topic, partitions, nil); err != nil {
		return err
	}
	batch := r.records(recordCount, "r")
	if _, err := r.send(topic, batch, "none"); err != nil {
		return err
	}
	places := map[int32]int64{0: 30, 1: 31, 2: 32, 3: 33}
	if err := r.readAndCommit(topic, group, len(batch), places); err != nil {
		return err
	}
	return r.checkResumes(topic, group, places, len(batch))
}

// restart kills the broker while records are on their way. A reader without a group and a member of a group
// live through it; another group resumes from what it committed before.
func (r *run) restart() (err error) {
	if r.restartCommand == "" {
		return skipped{"this broker can't be restarted"}
	}
	topic, group := r.name("restart"), r.name("restart")
	if err := r.client.Create(topic, partitions, nil); err != nil {
		return err
	}
	batch := r.records(600, "s")
	producer, err := r.client.Producer("none")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	if err := sendAll(producer, topic, batch[:200], true); err != nil {
		return err
	}
	places := map[int32]int64{0: 40, 1: 41, 2: 42, 3: 43}
	if err := r.readAndCommit(topic, group, 200, places); err != nil {
		return err
	}
	stays, err := r.client.Consumer(topic, group+"-stays")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stays.Close()) }()
	tail, err := r.client.Consumer(topic, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tail.Close()) }()
	seen, err := read(stays, 200)
	if err != nil {
		return err
	}
	tailed, err := read(tail, 200)
	if err != nil {
		return err
	}
	// These are on their way, acknowledged or not, when the broker is killed.
	if err := sendAll(producer, topic, batch[200:400], false); err != nil {
		return err
	}
	if err := r.killBroker(); err != nil {
		return err
	}
	if err := sendAll(producer, topic, batch[400:], false); err != nil {
		return err
	}
	places2, err := producer.Flush()
	if err != nil {
		return fmt.Errorf("records sent around the restart: %w", err)
	}
	if len(places2) != 400 {
		return fmt.Errorf("%d of 400 records sent around the restart were acknowledged", len(places2))
	}
	// The member that stays may be given again what it did not commit; the reader without a group may not.
	if err := untilDistinct(stays, seen, len(batch)); err != nil {
		return fmt.Errorf("the member that stayed: %w", err)
	}
	more, err := read(tail, len(batch)-len(tailed))
	if err != nil {
		return fmt.Errorf("the reader that stayed: %w", err)
	}
	if err := checkEqual(batch, append(tailed, more...)); err != nil {
		return fmt.Errorf("the reader that stayed: %w", err)
	}
	got, err := r.readAll(topic, len(batch))
	if err != nil {
		return err
	}
	if err := checkEqual(batch, got); err != nil {
		return err
	}
	return r.checkResumes(topic, group, places, len(batch))
}

func sendAll(producer Producer, topic string, batch []Record, flush bool) error {
	for _, record := range batch {
		if err := producer.Send(topic, record); err != nil {
			return err
		}
	}
	if !flush {
		return nil
	}
	places, err := producer.Flush()
	if err == nil && len(places) != len(batch) {
		err = fmt.Errorf("%d of %d records were acknowledged", len(places), len(batch))
	}
	return err
}

// untilDistinct polls until that many different places were delivered.
func untilDistinct(consumer Consumer, seen []Record, count int) error {
	distinct := map[Place]bool{}
	add := func(records []Record) {
		for _, record := range records {
			distinct[Place{record.Partition, record.Offset}] = true
		}
	}
	add(seen)
	poll := func() error {
		more, err := consumer.Poll(500 * time.Millisecond)
		add(more)
		return err
	}
	return until(func() bool { return len(distinct) >= count }, poll,
		func() string { return fmt.Sprintf("saw %d of %d records", len(distinct), count) })
}
