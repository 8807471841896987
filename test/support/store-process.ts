/**
 * A process of its own that has a store open and does what it is told, to be killed or starved by a test. Its argument
 * is a `StorePlace`. A line on stdin is an order, a line on stdout its outcome. Orders: see `orders`.
 */
import { createInterface } from 'node:readline';

import { StoreFault } from '../../src/store/faults.js';
import type { Store } from '../../src/store/port.js';
import { noon } from './domain.js';
import { openStoreAt, type StorePlace } from './open-store.js';
import { CHILDS_BUDGET } from './start-store-process.js';
import { ample, create, granted, keysOf, revoke, rotate, tryImport, update } from './store-calls.js';

const CHANGERS = 4;

export type Outcome = { did: string; keyIds: string[] } | { failed: string; kind?: string };

const orders: Record<string, (store: Store) => Promise<string[]>> = {
  create: async (store) => [(await create(store)).keyId],
  list: async (store) => (await keysOf(store)).map(({ keyId }) => keyId),
  async ping(store) {
    await store.ping(ample());
    return [];
  },
  /** Makes and alters keys one after the other, tells of each step as it is acknowledged, and never ends. */
  async changeForever(store) {
    const changer = async () => {
      for (;;) {
        const key = await create(store);
        say({ did: 'create', keyIds: [key.keyId] });
        const { key: newer } = await rotate(store, key, { ask: { overlapMs: 60_000 } });
        say({ did: 'rotate', keyIds: [newer.keyId, key.keyId] });
        await update(store, newer, { disabled: true });
        say({ did: 'update', keyIds: [newer.keyId] });
        await store.recordUses(new Map([[newer.keyId, noon]]), ample());
        say({ did: 'recordUses', keyIds: [newer.keyId] });
        await store.takeBudget({ lineageId: key.keyId, ...CHILDS_BUDGET }, ample());
        say({ did: 'takeBudget', keyIds: [key.keyId] });
        const { key: imported } = granted(await tryImport(store));
        say({ did: 'import', keyIds: [imported.keyId] });
        await revoke(store, imported);
        say({ did: 'revoke', keyIds: [imported.keyId] });
      }
    };
    return Promise.all(Array.from({ length: CHANGERS }, changer));
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
