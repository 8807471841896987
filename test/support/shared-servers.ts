/** The MongoDB and the Kafka that all test files of a run share; tests keep apart by databases and topics of their own. */
import { MongoClient } from 'mongodb';
import { kafkaAnswers, startKafka } from './kafka.js';
import { startMongod } from './mongod.js';
import { thisMachine } from './server-programs.js';
import { givenAddress, kafkaKind, mongodbKind } from './server-sources.js';
import type { ServerKind } from './server-sources.js';

export interface SharedServers extends AsyncDisposable {
  mongodbUri: string;
  kafkaBrokers: string[];
}

/**
 * Takes the servers whose addresses are given and starts the others, side by side.
 * @throws Error that says of each server why it is not there and what can be done
 */
export async function openSharedServers(): Promise<SharedServers> {
  const [mongodb, kafka] = await Promise.allSettled([openMongodb(), openKafka()]);
  if (mongodb.status === 'fulfilled' && kafka.status === 'fulfilled') {
    return {
      mongodbUri: mongodb.value.uri,
      kafkaBrokers: kafka.value.brokers,
      async [Symbol.asyncDispose]() {
        await mongodb.value.own?.[Symbol.asyncDispose]();
        await kafka.value.own?.[Symbol.asyncDispose]();
      },
    };
  }
  const reasons: string[] = [];
  for (const opened of [mongodb, kafka]) {
    if (opened.status === 'fulfilled') await opened.value.own?.[Symbol.asyncDispose]();
    else reasons.push(toMessage(opened.reason));
  }
  throw new Error(reasons.join('\n\n'));
}

/** A server that all files share is busy at times: whoever waits for it is not to give up after the driver's seconds. */
const PATIENT = 'connectTimeoutMS=30000&waitQueueTimeoutMS=30000&serverSelectionTimeoutMS=30000';

async function openMongodb(): Promise<{ uri: string; own?: AsyncDisposable }> {
  const uri = givenAddress(mongodbKind, thisMachine);
  if (uri === undefined) {
    const own = await startMongod();
    return { uri: `${own.uri}&${PATIENT}`, own };
  }
  await checkReplicaSet(uri);
  return { uri };
}

async function openKafka(): Promise<{ brokers: string[]; own?: AsyncDisposable }> {
  const given = givenAddress(kafkaKind, thisMachine);
  if (given === undefined) {
    const own = await startKafka({ lasting: true });
    return { brokers: own.brokers, own };
  }
  const brokers = given.split(',').map((broker) => broker.trim());
  if (!(await kafkaAnswers(brokers))) throw unusable(kafkaKind, 'no broker answers there');
  return { brokers };
}

async function checkReplicaSet(uri: string): Promise<void> {
  let client: MongoClient;
  try {
    client = new MongoClient(uri, { serverSelectionTimeoutMS: 10_000 });
  } catch {
    // The driver's words may quote the URI, password and all.
    throw unusable(mongodbKind, 'this is no URI of a MongoDB');
  }
  try {
    const hello = await client.db('admin').command({ hello: 1 });
    if (hello.setName === undefined) throw new Error('the server there is no member of a replica set');
  } catch (error) {
    throw unusable(mongodbKind, toMessage(error));
  } finally {
    await client.close();
  }
}

function unusable(kind: ServerKind, why: string): Error {
  return new Error(`${kind.addressVariable}: ${why}. Without this variable the tests start a ${kind.title} themselves`);
}

function toMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
