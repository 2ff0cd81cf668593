// Runs kafkajs through the steps of ../lib/steps.mjs, with the codecs that its users add for what it lacks.

import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import LZ4 from '@2l/kafkajs-lz4'
import * as zstd from '@bokuweb/zstd-wasm'
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import { Exists, Inbox, run, Unknown } from '../lib/steps.mjs'

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs
const { version } = createRequire(import.meta.url)('kafkajs/package.json')

const TYPES = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD
}

async function addCodecs() {
  await zstd.init()
  CompressionCodecs[TYPES.snappy] = snappy
  CompressionCodecs[TYPES.lz4] = new LZ4().codec
  CompressionCodecs[TYPES.zstd] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer))
  })
}

class Client {
  name = 'kafkajs'
  version = version
  lacks = {}
  // It has no consumer without a group: one of a new group stands in, and starts again after a restart.
  assigns = false

  static async open(bootstrap) {
    await addCodecs()
    const client = new Client()
    // What sends and reads outlasts a restart of the broker.
    client.kafka = new Kafka({
      brokers: [bootstrap],
      clientId: 'compat',
      logLevel: logLevel.ERROR,
      retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 100 }
    })
    client.admin = client.kafka.admin({ retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 5 } })
    await client.admin.connect()
    return client
  }

  async metadata() {
    const { brokers } = await this.admin.describeCluster()
    const { topics } = await this.admin.fetchTopicMetadata()
    return { brokers, topics: Object.fromEntries(topics.map(({ name, partitions }) => [name, partitions.length])) }
  }

  async create(topic, numPartitions, config) {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    // The library answers false for a topic that is there already. Its own wait for leaders fails where a broker
    // shows a topic a moment after its creation.
    if (!await this.admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions, configEntries }] })) {
      throw new Exists()
    }
    while ((await this.metadata()).topics[topic] !== numPartitions) {
      await sleep(50)
    }
  }

  async config(name) {
    const { resources } = await this.admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name }] })
    return Object.fromEntries(resources[0].configEntries.map(({ configName, configValue }) => [configName, configValue]))
  }

  async delete(topic) {
    try {
      await this.admin.deleteTopics({ topics: [topic] })
    } catch (error) {
      // Tried again a few times, as it may be a topic that was made a moment ago.
      throw (error.cause ?? error).type === 'UNKNOWN_TOPIC_OR_PARTITION' ? new Unknown() : error
    }
  }

  async producer(codec) {
    const producer = this.kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
    await producer.connect()
    return {
      send: (topic, records) => send(producer, topic, records, TYPES[codec]),
      close: () => producer.disconnect()
    }
  }

  async consumer(topic, group) {
    const consumer = new Consumer(this, topic, group ?? `${topic}-reader-${Math.random()}`)
    await consumer.open()
    return consumer
  }
}

/** Sends records and gives each one's place, from the first offset that the answer tells for each partition. */
async function send(producer, topic, records, compression) {
  const answers = await producer.send({
    topic,
    acks: -1,
    compression,
    messages: records.map(({ key, value, headers, timestamp, partition }) => {
      const all = {}
      for (const [name, one] of headers) {
        all[name] = name in all ? [all[name], one].flat() : one
      }
      return { key, value, headers: all, timestamp: String(timestamp), partition }
    })
  })
  const next = new Map(answers.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]))
  return records.map(({ partition }) => {
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return { partition, offset }
  })
}

class Consumer {
  #admin
  #consumer
  #topic
  #group
  #inbox = new Inbox()
  #assignment = []

  constructor({ kafka, admin }, topic, group) {
    this.#admin = admin
    this.#topic = topic
    this.#group = group
    this.#consumer = kafka.consumer({ groupId: group, heartbeatInterval: 500, maxWaitTimeInMs: 300 })
  }

  async open() {
    const { GROUP_JOIN, REBALANCING, CRASH } = this.#consumer.events
    this.#consumer.on(GROUP_JOIN, ({ payload }) => {
      this.#assignment = payload.memberAssignment[this.#topic] ?? []
    })
    this.#consumer.on(REBALANCING, () => {
      this.#assignment = []
    })
    this.#consumer.on(CRASH, ({ payload }) => {
      if (!payload.restart) {
        this.#inbox.fail(payload.error)
      }
    })
    await this.#consumer.connect()
    await this.#consumer.subscribe({ topics: [this.#topic], fromBeginning: true })
    await this.#consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => this.#inbox.push({
        key: message.key,
        value: message.value,
        headers: Object.entries(message.headers).flatMap(([name, values]) => [values].flat().map(one => [name, one])),
        timestamp: Number(message.timestamp),
        partition,
        offset: Number(message.offset)
      })
    })
  }

  poll(milliseconds) {
    return this.#inbox.take(milliseconds)
  }

  assignment() {
    return this.#assignment
  }

  async commit(places) {
    await this.#consumer.commitOffsets(Object.entries(places).map(([partition, offset]) =>
      ({ topic: this.#topic, partition: Number(partition), offset: String(offset) })))
  }

  async committed() {
    const [{ partitions }] = await this.#admin.fetchOffsets({ groupId: this.#group, topics: [this.#topic] })
    return Object.fromEntries(partitions.filter(({ offset }) => offset !== '-1').map(({ partition, offset }) => [partition, Number(offset)]))
  }

  async offsetsForTime(milliseconds) {
    // For a partition that holds nothing at or after that time the library answers its end.
    const found = await this.#admin.fetchTopicOffsetsByTimestamp(this.#topic, milliseconds)
    const ends = new Map((await this.#admin.fetchTopicOffsets(this.#topic)).map(({ partition, high }) => [partition, high]))
    return Object.fromEntries(found.filter(({ partition, offset }) => offset !== ends.get(partition))
      .map(({ partition, offset }) => [partition, Number(offset)]))
  }

  async seek(places) {
    // What was fetched from the old place may still be delivered: it is read and dropped first.
    while ((await this.#inbox.take(1000)).length > 0);
    for (const [partition, offset] of Object.entries(places)) {
      this.#consumer.seek({ topic: this.#topic, partition: Number(partition), offset: String(offset) })
    }
  }

  close() {
    return this.#consumer.disconnect()
  }
}

await run(Client.open)
