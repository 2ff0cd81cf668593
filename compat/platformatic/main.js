// Runs @platformatic/kafka through the steps of ../lib/steps.mjs.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Admin,
  Consumer as GroupConsumer,
  compressionsAlgorithms,
  ConfigResourceTypes,
  Producer
} from '@platformatic/kafka'
import { Exists, Inbox, run, Unknown } from '../lib/steps.mjs'

const PARTITIONS = 4
const { version } = JSON.parse(readFileSync(new URL('node_modules/@platformatic/kafka/package.json', import.meta.url)))

/** Whether an error, or any that it was made from, has this name among Kafka's. */
function is(error, name) {
  return error !== undefined && (error.apiId === name || is(error.cause, name) || (error.errors ?? []).some(one => is(one, name)))
}

class Client {
  name = 'platformatic'
  version = version
  // Without a group it still joins one, and reads from its committed or first offsets after a restart.
  assigns = false
  lacks = compressionsAlgorithms.zstd.available ? {} : { zstd: `node ${process.versions.node} has no zstd` }

  static async open(bootstrap) {
    const client = new Client()
    // What sends and reads outlasts a restart of the broker.
    client.options = { clientId: 'compat', bootstrapBrokers: [bootstrap], retries: 300, retryDelay: 200, metadataMaxAge: 2000 }
    client.admin = new Admin({ ...client.options, retries: 5 })
    return client
  }

  async metadata() {
    const names = await this.admin.listTopics()
    const { brokers, topics } = await this.admin.metadata({ topics: names, forceUpdate: true })
    return {
      brokers: [...brokers.values()],
      topics: Object.fromEntries(names.filter(name => topics.has(name)).map(name => [name, topics.get(name).partitionsCount]))
    }
  }

  async create(topic, partitions, config) {
    try {
      const configs = Object.entries(config).map(([name, value]) => ({ name, value }))
      await this.admin.createTopics({ topics: [topic], partitions, replicas: 1, configs })
    } catch (error) {
      throw is(error, 'TOPIC_ALREADY_EXISTS') ? new Exists() : error
    }
    // A broker may show a topic a moment after its creation.
    while (!(await this.admin.listTopics()).includes(topic)) {
      await sleep(50)
    }
  }

  async config(resourceName) {
    const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName, configurationKeys: null }
    const [{ configs }] = await this.admin.describeConfigs({ resources: [resource] })
    return Object.fromEntries(configs.map(({ name, value }) => [name, value]))
  }

  async delete(topic) {
    try {
      await this.admin.deleteTopics({ topics: [topic] })
    } catch (error) {
      throw is(error, 'UNKNOWN_TOPIC_OR_PARTITION') ? new Unknown() : error
    }
  }

  async producer(compression) {
    const producer = new Producer({ ...this.options, idempotent: true, acks: -1, compression, autocreateTopics: false })
    return { send: (topic, records) => send(producer, topic, records), close: () => producer.close() }
  }

  async consumer(topic, group) {
    const consumer = new Consumer(this.options, topic, group ?? `${topic}-reader-${Math.random()}`)
    await consumer.open()
    return consumer
  }
}

/** Sends records and gives each one's place, from the first offset that the answer tells for each partition. */
async function send(producer, topic, records) {
  const { offsets } = await producer.send({
    messages: records.map(({ key, value, headers, timestamp, partition }) => ({
      topic,
      key: key ?? undefined,
      value: value ?? undefined,
      // Names as buffers, which are different keys of a map even when they are equal.
      headers: new Map(headers.map(([name, one]) => [Buffer.from(name), one])),
      timestamp: BigInt(timestamp),
      partition
    }))
  })
  const next = new Map(offsets.map(({ partition, offset }) => [partition, Number(offset)]))
  return records.map(({ partition }) => {
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return { partition, offset }
  })
}

class Consumer {
  #topic
  #consumer
  #stream
  #inbox = new Inbox()
  #closing = false

  constructor(options, topic, groupId) {
    this.#topic = topic
    this.#consumer = new GroupConsumer({
      ...options,
      groupId,
      maxWaitTime: 300,
      heartbeatInterval: 500,
      sessionTimeout: 10_000,
      rebalanceTimeout: 20_000
    })
  }

  open() {
    return this.#read({ mode: 'committed', fallbackMode: 'earliest' })
  }

  async #read(where) {
    this.#stream = await this.#consumer.consume({ topics: [this.#topic], autocommit: false, ...where })
    this.#stream.on('data', message => {
      // A fetch that was waiting when a partition went to another member still hands over its records.
      if (!this.assignment().includes(message.partition)) {
        return
      }
      this.#inbox.push({
        key: message.key ?? null,
        value: message.value ?? null,
        headers: [...message.headers].map(([name, value]) => [name.toString(), value]),
        timestamp: Number(message.timestamp),
        partition: message.partition,
        offset: Number(message.offset)
      })
    })
    this.#stream.on('error', error => {
      if (!this.#closing) {
        this.#inbox.fail(error)
      }
    })
  }

  poll(milliseconds) {
    return this.#inbox.take(milliseconds)
  }

  assignment() {
    return this.#consumer.assignments?.find(({ topic }) => topic === this.#topic)?.partitions ?? []
  }

  async commit(places) {
    await this.#consumer.commit({
      offsets: Object.entries(places).map(([partition, offset]) =>
        ({ topic: this.#topic, partition: Number(partition), offset: BigInt(offset), leaderEpoch: -1 }))
    })
  }

  async committed() {
    const all = await this.#consumer.listCommittedOffsets({
      topics: [{ topic: this.#topic, partitions: [...Array(PARTITIONS).keys()] }]
    })
    return known([...all.get(this.#topic).entries()])
  }

  async offsetsForTime(milliseconds) {
    const all = await this.#consumer.listOffsetsWithTimestamps({ topics: [this.#topic], timestamp: BigInt(milliseconds) })
    return known([...all.get(this.#topic)].map(([partition, { offset }]) => [partition, offset]))
  }

  async seek(places) {
    await this.#stream.close()
    this.#inbox = new Inbox()
    await this.#read({
      mode: 'manual',
      offsets: Object.entries(places).map(([partition, offset]) =>
        ({ topic: this.#topic, partition: Number(partition), offset: BigInt(offset) }))
    })
  }

  async close() {
    this.#closing = true
    await this.#stream.close()
    await this.#consumer.close(true)
  }
}

/** The offsets that are there. */
function known(entries) {
  return Object.fromEntries(entries.filter(([, offset]) => offset >= 0n).map(([partition, offset]) => [partition, Number(offset)]))
}

await run(Client.open)
