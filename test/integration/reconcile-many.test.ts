/** More lost events than one transaction of MongoDB should hold. */
import { expect, inject, test } from 'vitest';

import { findLost } from '../../src/audit/find-lost.js';
import { readHeads, readStore } from '../../src/audit/read-store.js';
import { verifyChain } from '../../src/audit/verify-chain.js';
import { settle } from '../../src/cli/commands/reconcile-organization.js';
import { systemClock } from '../../src/keys/clock.js';
import type { Store } from '../../src/store/port.js';
import { makeChain, toEntries } from '../support/audit.js';
import { SOURCE } from '../support/domain.js';
import { inOwnDatabase } from '../support/mongodb-store.js';
import { openStoreAt } from '../support/open-store.js';

test(
  'lost events go back into MongoDB 500 a change, and after an interruption from where it ended',
  { timeout: 120_000 },
  async () => {
    await using store = await openStoreAt({ engine: 'mongodb', uri: inOwnDatabase(inject('mongodbUri')) });
    const chain = makeChain(1201);
    const options = { keyspaces: new Map(), apply: true, clock: systemClock };
    const settleLost = async (through: Store) => {
      const entries = (async function* () {
        yield* await Promise.resolve(toEntries(chain));
      })();
      const { organizations } = await findLost(entries, store, { source: SOURCE, clock: systemClock });
      const [lost] = organizations;
      return { count: lost?.count, outcome: lost && (await settle(lost, through, options)) };
    };
    let changes = 0;
    const interrupted: Store = {
      ...store,
      change: (load, rule, deadline) => {
        changes += 1;
        return changes > 2 ? Promise.reject(new Error('interrupted')) : store.change(load, rule, deadline);
      },
    };
    await expect(settleLost(interrupted)).rejects.toThrow('interrupted');
    const { count, outcome } = await settleLost(store);
    expect(count).toBe(201);
    expect(outcome?.losses?.gone).toHaveLength(601);
    expect(await settleLost(store)).toEqual({});
    const heads = await readHeads(store);
    const verdict = await verifyChain(readStore(store, systemClock), { repeats: 'fault', heads });
    expect(verdict).toMatchObject({ events: 1201, faults: [] });
  },
);
