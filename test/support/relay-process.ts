/**
 * A replica's relay in a process of its own, to be killed and paused by a test. Its argument is a `RelayPlace`. It
 * writes its log to stdout, and stops in good order when stdin ends.
 */
import { finished } from 'node:stream/promises';
import { pino } from 'pino';

import type { KafkaSettings } from '../../src/audit/kafka-client.js';
import { openKafkaSink } from '../../src/audit/kafka-sink.js';
import { startRelay } from '../../src/audit/relay.js';
import { systemClock } from '../../src/keys/clock.js';
import { openStoreAt, type StorePlace } from './open-store.js';

export interface RelayPlace {
  readonly store: StorePlace;
  readonly kafka: KafkaSettings;
}

const place = JSON.parse(process.argv[2] ?? '') as RelayPlace;
const log = pino({ level: 'info' }, pino.destination({ fd: 1, sync: true }));
await using store = await openStoreAt(place.store);
const sink = await openKafkaSink(place.kafka, log);
await using relay = await startRelay({ outbox: store.outbox, sink, backlogMax: 1000, clock: systemClock, log });
log.info({ depth: relay.backlog.depth }, 'started');
await finished(process.stdin.resume(), { writable: false });
