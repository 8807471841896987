/**
 * A process of its own that has a store open and does what it is told, to be killed or starved by a test. Its argument
 * is a `StorePlace`. A line on stdin is an order, a line on stdout its outcome. Orders: see `orders`.
 */
import { createInterface } from 'node:readline';

import { StoreFault } from '../../src/store/faults.js';
import type { Store } from '../../src/store/port.js';
import { openStoreAt, type StorePlace } from './open-store.js';
import { ample, create, keysOf } from './store-calls.js';

const CREATORS = 4;

export type Outcome = { did: string; keyIds: string[] } | { failed: string; kind?: string };

const orders: Record<string, (store: Store) => Promise<string[]>> = {
  create: async (store) => [(await create(store)).keyId],
  list: async (store) => (await keysOf(store)).map(({ keyId }) => keyId),
  async ping(store) {
    await store.ping(ample());
    return [];
  },
  /** Tells of each key as it is acknowledged, and never ends. */
  async createForever(store) {
    const creator = async () => {
      for (;;) say({ did: 'create', keyIds: [(await create(store)).keyId] });
    };
    return Promise.all(Array.from({ length: CREATORS }, creator));
  },
};

try {
  await using store = await openStoreAt(JSON.parse(process.argv[2] ?? '') as StorePlace);
  say({ did: 'open', keyIds: [] });
  for await (const order of createInterface({ input: process.stdin })) {
    await orders[order]?.(store).then(
      (keyIds) => say({ did: order, keyIds }),
      (error: unknown) => say(toFailure(error)),
    );
  }
} catch (error) {
  say(toFailure(error));
}

function toFailure(error: unknown): Outcome {
  const failed = error instanceof Error ? error.message : String(error);
  return { failed, ...(error instanceof StoreFault && { kind: error.kind }) };
}

function say(outcome: Outcome): void {
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
