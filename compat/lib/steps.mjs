// The steps that every JavaScript client goes through (../README.md tells what must hold).
//
// A client's script brings an adapter and calls `run`. The adapter gives `name`, `version`, `lacks` (the reason by
// codec that it does not have), `assigns` (whether a consumer without a group keeps its place by itself, so
// that a restart of the broker may not move it), and
//
//     metadata() -> { brokers: [{ host, port }], topics: { topic: partitions } }
//     create(topic, partitions, config)      throws Exists
//     config(topic) -> { name: value }
//     delete(topic)                          throws Unknown
//     producer(codec) -> { send(topic, records) -> [{ partition, offset }] in the order of sending, close() }
//     consumer(topic, group) -> a consumer, see below
//     close()
//
// A producer is idempotent and waits for acks=all; one call of `send` is one request. A consumer with a group
// subscribes and never commits by itself; without one it reads every partition from its beginning. It has
//
//     poll(milliseconds) -> [record]
//     assignment() -> [partition]
//     commit({ partition: offset }), committed() -> { partition: offset }
//     offsetsForTime(milliseconds) -> { partition: offset }, without those that hold nothing at or after it
//     seek({ partition: offset })
//     close()                                leaves the group
//
// A record is { key, value, headers: [[name, Buffer]], timestamp, partition, offset }, with numbers for the last
// three and null for Kafka's null. Every wait is bounded, and a whole step is as well: a client that hangs fails
// its step, not the run.

import assert from 'node:assert'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

const STEP_MS = 120_000
const WAIT_MS = 60_000
const PARTITIONS = 4
const RECORDS = 400
const APART_MS = 1000
const FIRST_TIMESTAMP = Date.now() - 3_600_000

/** The topic is there already. */
export class Exists extends Error {}

/** There is no such topic. */
export class Unknown extends Error {}

class Failed extends Error {}
class Skip extends Error {}

/** What a consumer's callbacks push and its `poll` takes. */
export class Inbox {
  #records = []
  #failure = null
  #wake = () => {}

  push(record) {
    this.#records.push(record)
    this.#wake()
  }

  fail(error) {
    this.#failure = error
    this.#wake()
  }

  async take(milliseconds) {
    if (this.#records.length === 0 && this.#failure === null) {
      const { promise, resolve } = waiter()
      const timer = setTimeout(resolve, milliseconds)
      this.#wake = resolve
      await promise
      clearTimeout(timer)
    }
    if (this.#records.length === 0 && this.#failure !== null) {
      throw this.#failure
    }
    return this.#records.splice(0)
  }
}

function waiter() {
  let resolve
  const promise = new Promise(done => {
    resolve = done
  })
  return { promise, resolve }
}

function check(holds, otherwise) {
  if (!holds) {
    throw new Failed(otherwise)
  }
}

/** Acts until the condition holds. */
async function until(condition, what, act = () => sleep(50)) {
  const end = Date.now() + WAIT_MS
  while (!(await condition())) {
    check(Date.now() < end, `within ${WAIT_MS / 1000} s: ${what()}`)
    await act()
  }
}

/** Records of every shape, spread over the partitions; the header `n` numbers them. */
function records(count, label = 'r') {
  return Array.from({ length: count }, (_, n) => {
    const headers = [['n', Buffer.from(`${label}${n}`)]]
    if (n % 5 === 0) {
      headers.push(['empty', Buffer.alloc(0)], ['twice', Buffer.from([0, 255])], ['twice', Buffer.from('b')])
    }
    const bytes = Buffer.from(Array.from({ length: (n * 37) % 1500 }, (_, i) => (n * 7 + i) % 251))
    return {
      key: n % 50 === 7 ? null : Buffer.from(`${label}-${n}`),
      value: n % 50 === 13 ? null : Buffer.concat([bytes, Buffer.alloc(n % 90, 'x')]),
      headers,
      timestamp: FIRST_TIMESTAMP + n * APART_MS,
      partition: n % PARTITIONS
    }
  })
}

function number(record) {
  return record.headers.find(([name]) => name === 'n')?.[1].toString()
}

function numbers(all) {
  return all.map(number).sort().join()
}

function short(record) {
  const size = record.value === null ? 'null' : `${record.value?.length} bytes`
  const headers = record.headers.map(([name, value]) => `${name}=${value?.toString('latin1')}`).join(',')
  return `[${record.partition}@${record.offset} key=${record.key} value=${size} headers=${headers} timestamp=${record.timestamp}]`
}

function same(sent, got) {
  try {
    assert.deepStrictEqual({ ...got, offset: undefined }, { ...sent, offset: undefined })
    return true
  } catch {
    return false
  }
}

/** That `got` holds exactly what was sent, in order within each partition, at offsets without a gap. */
function checkEqual(sent, got) {
  check(got.length === sent.length, `sent ${sent.length} records and read ${got.length}`)
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const expected = sent.filter(record => record.partition === partition)
    const read = got.filter(record => record.partition === partition)
    check(read.length === expected.length, `sent ${expected.length} records to partition ${partition} and read ${read.length}`)
    expected.forEach((record, i) => {
      check(read[i].offset === i, `partition ${partition} has offset ${read[i].offset} at place ${i}`)
      check(same(record, read[i]), `sent ${short(record)} and read ${short(read[i])}`)
    })
  }
}

/** Polls until `count` records are there; then once more, so that a record too many shows. */
async function read(consumer, count) {
  const got = []
  await until(() => got.length >= count, () => `read ${got.length} of ${count} records`,
    async () => got.push(...await consumer.poll(500)))
  got.push(...await consumer.poll(300))
  return got
}

function equal(one, other) {
  try {
    assert.deepEqual(one, other)
    return true
  } catch {
    return false
  }
}

class Steps {
  #client
  #bootstrap
  #restart
  #id = randomBytes(4).toString('hex')
  #produced = []
  failed = false

  constructor(client, bootstrap, restart) {
    this.#client = client
    this.#bootstrap = bootstrap
    this.#restart = restart
  }

  /** A topic or a group of this run's own. */
  #name(what) {
    return `${this.#client.name}-${what}-${this.#id}`
  }

  /** Runs one step and reports it, whatever happens in it. */
  async #step(name, action) {
    const timer = new AbortController()
    const limit = sleep(STEP_MS, undefined, { signal: timer.signal }).then(
      () => { throw new Failed(`not done within ${STEP_MS / 1000} s`) }, () => {})
    try {
      await Promise.race([action(), limit])
      console.log(`ok ${name}`)
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skip ${name}: ${error.message}`)
        return
      }
      this.failed = true
      const kind = error instanceof Failed ? '' : `${error?.name}: `
      const causes = [error, error?.cause, ...error?.errors ?? [], ...(error?.errors ?? []).map(one => one.cause)]
      const text = [...new Set(causes.filter(Boolean).map(one => one.message))].join('; ')
      console.log(`FAIL ${name}: ${kind}${text.split(/\s+/).join(' ').slice(0, 600)}`)
      console.error(error)
    } finally {
      timer.abort()
    }
  }

  /** Gives the consumer to an action and closes it afterwards, also when the action fails. */
  async #with(consumer, action) {
    try {
      return await action(consumer)
    } finally {
      await consumer.close()
    }
  }

  async #send(topic, batch, codec = 'none') {
    return this.#with(await this.#client.producer(codec), producer => producer.send(topic, batch))
  }

  async #readAll(topic, count) {
    return this.#with(await this.#client.consumer(topic, null), consumer => read(consumer, count))
  }

  async #metadata() {
    const { brokers, topics } = await this.#client.metadata()
    const port = Number(this.#bootstrap.slice(this.#bootstrap.lastIndexOf(':') + 1))
    check(brokers.some(broker => broker.port === port), `no broker with port ${port} among ${JSON.stringify(brokers)}`)
    check(!(this.#name('none') in topics), 'lists a topic that nobody made')
  }

  async #awaitPartitions(topic, count) {
    let last
    await until(async () => (last = (await this.#client.metadata()).topics[topic] ?? 0) === count,
      () => `metadata says ${last} partitions instead of ${count}`)
  }

  async #create() {
    const topic = this.#name('create')
    await this.#client.create(topic, PARTITIONS, { 'retention.ms': '86400000' })
    await this.#awaitPartitions(topic, PARTITIONS)
    const config = await this.#client.config(topic)
    check(config['retention.ms'] === '86400000', `retention.ms is described as ${config['retention.ms']}`)
    await this.#mustThrow(Exists, 'creation', () => this.#client.create(topic, PARTITIONS, {}))
  }

  async #mustThrow(kind, what, action) {
    try {
      await action()
    } catch (error) {
      if (error instanceof kind) {
        return
      }
      throw error
    }
    throw new Failed(`a second ${what} was not refused`)
  }

  async #produceWith(codec) {
    const topic = this.#name(codec)
    await this.#client.create(topic, PARTITIONS, {})
    const batch = records(RECORDS)
    const places = await this.#send(topic, batch, codec)
    check(places.length === batch.length, `${batch.length} records sent, ${places.length} acknowledged`)
    const following = Array(PARTITIONS).fill(0)
    places.forEach(({ partition, offset }, i) => {
      check(partition === batch[i].partition, `sent to partition ${batch[i].partition}, acknowledged in ${partition}`)
      check(offset === following[partition], `acknowledged offset ${offset} instead of ${following[partition]}`)
      following[partition]++
    })
    this.#produced.push({ codec, topic, batch })
  }

  /** Does something for what every codec's step has left. */
  async #forEachCodec(action) {
    check(this.#produced.length > 0, 'nothing was produced')
    for (const produced of this.#produced) {
      try {
        await action(produced)
      } catch (error) {
        throw error instanceof Failed ? new Failed(`${produced.codec}: ${error.message}`) : error
      }
    }
  }

  async #consumeStart() {
    await this.#forEachCodec(async ({ topic, batch }) => checkEqual(batch, await this.#readAll(topic, batch.length)))
  }

  async #consumeTimestamp() {
    await this.#forEachCodec(async ({ topic, batch }) => {
      await this.#with(await this.#client.consumer(topic, null), consumer => this.#lookUp(consumer, batch))
    })
  }

  async #lookUp(consumer, batch) {
    const middle = FIRST_TIMESTAMP + RECORDS / 2 * APART_MS
    let offsets
    for (const at of [middle, middle + 1]) {
      const wanted = {}
      for (let partition = 0; partition < PARTITIONS; partition++) {
        wanted[partition] = batch.filter(record => record.partition === partition).findIndex(record => record.timestamp >= at)
      }
      offsets = await consumer.offsetsForTime(at)
      check(equal(offsets, wanted), `offsets for ${at} are ${JSON.stringify(offsets)} instead of ${JSON.stringify(wanted)}`)
    }
    // The loop's last answer is for the later time, which no record has exactly.
    const later = batch.filter(record => record.timestamp > middle)
    await consumer.seek(offsets)
    const got = await read(consumer, later.length)
    check(numbers(got) === numbers(later), `read ${got.length} records from the timestamp on instead of ${later.length}`)
    const after = await consumer.offsetsForTime(FIRST_TIMESTAMP + RECORDS * APART_MS * 2)
    check(equal(after, {}), `offsets after the last record: ${JSON.stringify(after)}`)
  }

  async #group() {
    const topic = this.#name('group')
    await this.#client.create(topic, PARTITIONS, {})
    const members = []
    const got = []
    const poll = async () => {
      for (const member of members) {
        got.push(...await member.poll(100))
      }
    }
    const shares = () => members.map(member => [...member.assignment()])
    const shared = () => shares().every(share => share.length > 0) && equal(shares().flat().sort(), [0, 1, 2, 3])
    const awaitShared = () => until(shared, () => `the members have ${JSON.stringify(shares())}`, poll)
    const awaitRead = count => until(() => got.length >= count, () => `the members read ${got.length} of ${count} records`, poll)
    try {
      for (let i = 0; i < 2; i++) {
        members.push(await this.#client.consumer(topic, topic))
        await awaitShared()
      }
      const first = records(200, 'a')
      await this.#send(topic, first)
      await awaitRead(200)
      // Both commit what they have read, so that whoever owns a partition afterwards goes on from there.
      for (const member of members) {
        const places = member.assignment().map(partition => [partition, got.filter(one => one.partition === partition).length])
        await member.commit(Object.fromEntries(places))
      }
      await members.shift().close()
      await awaitShared()
      const second = records(200, 'b')
      await this.#send(topic, second)
      await awaitRead(400)
      await poll()
      check(numbers(got) === numbers([...first, ...second]), `400 records were delivered as ${got.length}`)
    } finally {
      await Promise.all(members.map(member => member.close()))
    }
  }

  /** Has one member of a new group read the records and commit some places among them. */
  async #readAndCommit(topic, group, count, places) {
    await this.#with(await this.#client.consumer(topic, group), async member => {
      const before = await member.committed()
      check(equal(before, {}), `a new group has offsets: ${JSON.stringify(before)}`)
      await read(member, count)
      await member.commit(places)
      await this.#checkCommitted(member, places)
    })
  }

  async #checkCommitted(member, places) {
    const committed = await member.committed()
    check(equal(committed, places), `committed ${JSON.stringify(places)} and read back ${JSON.stringify(committed)}`)
  }

  /** That a new member of the group is given exactly what lies after the committed places. */
  async #checkResumes(topic, group, places, total) {
    const left = total - Object.values(places).reduce((sum, place) => sum + place, 0)
    await this.#with(await this.#client.consumer(topic, group), async member => {
      const got = await read(member, left)
      check(got.length === left, `${left} records lie after the commit, ${got.length} were delivered`)
      for (const [partition, place] of Object.entries(places)) {
        const offsets = got.filter(record => record.partition === Number(partition)).map(record => record.offset)
        check(offsets.every((offset, i) => offset === place + i),
          `partition ${partition} was committed at ${place} and went on at ${offsets.slice(0, 5)}`)
      }
      await this.#checkCommitted(member, places)
    })
  }

  async #commit() {
    const topic = this.#name('commit')
    await this.#client.create(topic, PARTITIONS, {})
    await this.#send(topic, records(RECORDS))
    const places = { 0: 30, 1: 31, 2: 32, 3: 33 }
    await this.#readAndCommit(topic, topic, RECORDS, places)
    await this.#checkResumes(topic, topic, places, RECORDS)
  }

  async #killBroker() {
    const [command, ...rest] = this.#restart.split(/\s+/).filter(Boolean)
    const { promise, resolve } = waiter()
    execFile(command, [...rest, 'kill'], error => resolve(error))
    const error = await promise
    check(error === null, `the broker did not come back: ${error?.message}`)
  }

  /** Kills the broker while records are on their way. What reads lives through it; another group resumes. */
  async #restartBroker() {
    if (!this.#restart) {
      throw new Skip("this broker can't be restarted")
    }
    const topic = this.#name('restart')
    await this.#client.create(topic, PARTITIONS, {})
    const batch = records(600, 's')
    const places = { 0: 40, 1: 41, 2: 42, 3: 43 }
    await this.#with(await this.#client.producer('none'), async producer => {
      await producer.send(topic, batch.slice(0, 200))
      await this.#readAndCommit(topic, topic, 200, places)
      await this.#with(await this.#client.consumer(topic, `${topic}-stays`), async stays => {
        const seen = await read(stays, 200)
        const tail = this.#client.assigns ? await this.#client.consumer(topic, null) : null
        try {
          const tailed = tail === null ? [] : await read(tail, 200)
          await this.#sendAround(producer, topic, batch.slice(200))
          // The member that stays may be given again what it did not commit; the reader without a group may not.
          const distinct = () => new Set(seen.map(record => `${record.partition}@${record.offset}`)).size
          await until(() => distinct() >= 600, () => `the member that stayed saw ${distinct()} of 600 records`,
            async () => seen.push(...await stays.poll(500)))
          if (tail !== null) {
            tailed.push(...await read(tail, 600 - tailed.length))
            checkEqual(batch, tailed)
          }
        } finally {
          await tail?.close()
        }
      })
    })
    checkEqual(batch, await this.#readAll(topic, batch.length))
    await this.#checkResumes(topic, topic, places, batch.length)
  }

  /** Sends in small requests, one after the other, and has the broker killed while they go. */
  async #sendAround(producer, topic, batch) {
    let acknowledged = 0
    const { promise: under, resolve: begun } = waiter()
    const sending = (async () => {
      for (let at = 0; at < batch.length; at += 10) {
        acknowledged += (await producer.send(topic, batch.slice(at, at + 10))).length
        if (acknowledged >= 100) {
          begun()
        }
      }
    })()
    const settled = sending.then(() => null, error => error)
    await Promise.race([under, settled])
    await this.#killBroker()
    const error = await settled
    if (error !== null) {
      throw error
    }
    check(acknowledged === batch.length, `${acknowledged} of ${batch.length} records sent around the restart were acknowledged`)
  }

  async #delete() {
    const topic = this.#name('delete')
    await this.#client.create(topic, PARTITIONS, {})
    await this.#send(topic, records(20))
    await this.#client.delete(topic)
    await this.#awaitPartitions(topic, 0)
    await this.#mustThrow(Unknown, 'deletion', () => this.#client.delete(topic))
  }

  async all() {
    console.log(`version ${this.#client.version}`)
    await this.#step('metadata', () => this.#metadata())
    await this.#step('create', () => this.#create())
    for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
      await this.#step(`produce-${codec}`, async () => {
        if (codec in this.#client.lacks) {
          throw new Skip(this.#client.lacks[codec])
        }
        await this.#produceWith(codec)
      })
    }
    await this.#step('consume-start', () => this.#consumeStart())
    await this.#step('consume-timestamp', () => this.#consumeTimestamp())
    await this.#step('group', () => this.#group())
    await this.#step('commit', () => this.#commit())
    await this.#step('restart', () => this.#restartBroker())
    await this.#step('delete', () => this.#delete())
  }
}

/** Runs all steps with the client that `makeClient(bootstrap)` gives, and ends the process. */
export async function run(makeClient) {
  const bootstrap = process.env.BOOTSTRAP
  // A client's own callback that throws must fail the step it belongs to, not the process.
  process.on('unhandledRejection', error => console.error('unhandled:', error))
  process.on('uncaughtException', error => console.error('uncaught:', error))
  const steps = new Steps(await makeClient(bootstrap), bootstrap, process.env.RESTART)
  await steps.all()
  // Not left to the event loop: a client's timers, after a failed step, must not keep the process.
  process.exit(steps.failed ? 1 : 0)
}
