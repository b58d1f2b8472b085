// Sends commands, one JSON object per line of standard input, and prints the result of each,
// matched by "position" or by "id" (the one argument).
import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import kafkajs from 'kafkajs'
import lz4 from 'lz4js'

const { CompressionCodecs, CompressionTypes, Kafka, logLevel, Partitioners } = kafkajs

CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async ({ buffer }) => Buffer.from(lz4.compress(buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
})

const prefix = process.env.TOPIC_PREFIX ?? ''
const kafka = new Kafka({
  clientId: 'produce-example',
  brokers: (process.env.KAFKA_BROKERS || '127.0.0.1:9092').split(','),
  logLevel: logLevel.ERROR,
})
const byId = process.argv[2] === 'id'
const TIMEOUT_MS = 30_000

// kafkajs reads only in groups, so use a new group that starts at the current end of `results`.
async function resultsFromNowOn(onResult) {
  const topic = prefix + 'results'
  const admin = kafka.admin()
  await admin.connect()
  const ends = await admin.fetchTopicOffsets(topic)
  await admin.disconnect()
  const groupId = `${prefix}produce-example-${randomUUID()}`
  const consumer = kafka.consumer({ groupId, readUncommitted: false, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topic })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => onResult(JSON.parse(message.value.toString())),
  })
  for (const { partition, high } of ends) consumer.seek({ topic, partition, offset: high })
  return consumer
}

async function send() {
  const commands = []
  for await (const line of createInterface({ input: process.stdin })) {
    commands.push({ line, ...JSON.parse(line) })
  }
  const producer = kafka.producer({
    // murmur2, as in Java clients. LegacyPartitioner and version 1 hash differently.
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true, // requires acks: -1
    maxInFlightRequests: 1,
  })
  await producer.connect()
  const sent = []
  for (const { line, account, id } of commands) {
    const message = { key: account, value: line }
    const [at] = await producer.send({ topic: prefix + 'commands', acks: -1, messages: [message] })
    sent.push({ id, position: `${at.partition}:${at.baseOffset}` })
  }
  await producer.disconnect()
  return sent
}

const found = new Map()
const position = (result) => `${result.partition}:${result.offset}`
const consumer = await resultsFromNowOn((result) => {
  found.set(byId ? result.id : position(result), result)
})
const deadline = Date.now() + TIMEOUT_MS
for (const each of await send()) {
  const wanted = byId ? each.id : each.position
  while (!found.has(wanted)) {
    if (Date.now() > deadline) throw new Error('some results have not arrived; no command is lost')
    await new Promise((later) => setTimeout(later, 20))
  }
  const result = found.get(wanted)
  console.log(position(result), result.id, result.outcome, result.reason ?? '-')
}
await consumer.disconnect()
