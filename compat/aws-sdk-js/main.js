// The AWS SDK for JavaScript v3 on the protocol of ../lib/kinesis-steps/bridge.py.

import * as sdk from '@aws-sdk/client-kinesis'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

function client(attempts) {
  return new sdk.KinesisClient({
    endpoint: process.env.KINESIS,
    region: 'us-east-1',
    credentials: { accessKeyId: 'compat', secretAccessKey: 'compat' },
    retryMode: 'standard',
    maxAttempts: attempts
  })
}

const patient = client(12)
const single = client(1)

/** Parameters as the SDK takes them. */
function sent(name, value) {
  if (Array.isArray(value)) {
    return value.map(one => sent(name, one))
  }
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, sent(key, one)]))
  }
  if (name === 'Data') {
    return Buffer.from(value, 'base64')
  }
  return name === 'Timestamp' ? new Date(value * 1000) : value
}

/** Answers as the bridge takes them. */
function received(value) {
  if (value instanceof Uint8Array) {
    return Buffer.from(value).toString('base64')
  }
  if (value instanceof Date) {
    return value.getTime() / 1000
  }
  if (Array.isArray(value)) {
    return value.map(received)
  }
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).filter(([key]) => key !== '$metadata').map(([key, one]) => [key, received(one)]))
  }
  return value
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}

async function answer({ id, retry, operation, parameters }) {
  try {
    const command = new sdk[`${operation}Command`](sent('', parameters))
    const answered = await (retry ? patient : single).send(command)
    if (operation === 'SubscribeToShard') {
      for await (const event of answered.EventStream) {
        say({ id, event: received(event.SubscribeToShardEvent) })
      }
      say({ id, answer: {} })
    } else {
      say({ id, answer: received(answered) })
    }
  } catch (error) {
    console.error(operation, error)
    say({ id, error: { code: error.name, message: error.message } })
  }
}

const pinned = new URL('node_modules/@aws-sdk/client-kinesis/package.json', import.meta.url)
say({ version: JSON.parse(readFileSync(pinned, 'utf8')).version })
for await (const line of createInterface({ input: process.stdin })) {
  answer(JSON.parse(line))
}
process.exit(0)
