// One member of the group: writes every record it is given to a file, one `partition offset key value` line
// each, and says on its standard output which partitions it has and how many records it has been given.
// SIGTERM lets it finish its batch, commit and leave.
'use strict'

const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic, groupId, path] = process.argv.slice(2)
const kafka = new Kafka({
  clientId: 'flights',
  brokers: [bootstrap],
  logLevel: logLevel.ERROR,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 200, restartOnFailure: async () => true }
})
const consumer = kafka.consumer({
  groupId,
  sessionTimeout: 10000,
  heartbeatInterval: 500,
  maxWaitTimeInMs: 100,
  // Small fetches make many batches, and so many commits for the kills to fall between.
  maxBytesPerPartition: 128 * 1024
})
const out = fs.createWriteStream(path)
let given = 0

async function main () {
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    console.log('assigned', (payload.memberAssignment[topic] || []).join(','))
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    eachBatch: async ({ batch }) => {
      for (const { offset, key, value } of batch.messages) {
        out.write(`${batch.partition}\t${offset}\t${key}\t${value}\n`)
      }
      given += batch.messages.length
      console.log('given', given)
    }
  })
}

process.on('SIGTERM', async () => {
  await consumer.disconnect()
  out.end(() => process.exit(0))
})
main().catch((error) => {
  console.error(error)
  process.exit(1)
})
