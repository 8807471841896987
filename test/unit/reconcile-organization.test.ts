/** Lost events that are put back in several changes, on a real store that is interrupted between any two of them. */
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { findLost } from '../../src/audit/find-lost.js';
import { readHeads, readStore } from '../../src/audit/read-store.js';
import { verifyChain } from '../../src/audit/verify-chain.js';
import { type Outcome, settle } from '../../src/cli/commands/reconcile-organization.js';
import type { CloudEvent } from '../../src/keys/chain.js';
import { systemClock } from '../../src/keys/clock.js';
import type { AuditEvent } from '../../src/keys/event.js';
import type { Key } from '../../src/keys/key.js';
import type { Store } from '../../src/store/port.js';
import { toEntries } from '../support/audit.js';
import { SOURCE } from '../support/domain.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { openStoreAt } from '../support/open-store.js';
import { create, eventsOf, keysOf, revoke, update } from '../support/store-calls.js';

const EVENTS_PER_CHANGE = 2;

let folder: GuardedFolder;
let published: AuditEvent[];
/** By the name that they have in the backup. */
const ids = new Map<string, string>();
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-reconcile-'));
  const [lived, backup] = [join(folder.path, 'lived'), join(folder.path, 'backup')];
  const made: Key[] = [];
  {
    await using store = await openStoreAt({ engine: 'sqlite', dataDir: lived });
    for (const name of ['revoked', 'disabled', 'enabled again', 'kept'])
      made.push(await create(store, { ask: { name } }));
  }
  await cp(lived, backup, { recursive: true });
  await using store = await openStoreAt({ engine: 'sqlite', dataDir: lived });
  const [revoked, disabled, enabledAgain, kept] = made as [Key, Key, Key, Key];
  // What takes away comes first: it is put back long before the last of them.
  await revoke(store, revoked);
  await update(store, disabled, { disabled: true });
  const off = await update(store, enabledAgain, { disabled: true });
  const gone = await create(store, { ask: { name: 'gone' } });
  await update(store, off, { disabled: false });
  await revoke(store, gone);
  await update(store, kept, { name: 'renamed' });
  published = await eventsOf(store);
  for (const { keyId, name } of [...made, gone]) ids.set(name, keyId);
});
afterAll(() => folder[Symbol.asyncDispose]());

test('an interruption anywhere leaves a store that is not whole, or one in which all is taken away', async () => {
  for (let writes = 0; ; writes += 1) {
    const dataDir = await putBack(`after ${writes} writes`);
    {
      await using store = await openStoreAt({ engine: 'sqlite', dataDir });
      const isThrough = await settleAll(interrupted(store, writes)).then(
        () => true,
        () => false,
      );
      if ((await lostOf(store)).length === 0) await expectTakenAway(store);
      if (isThrough) {
        // A mark, four changes, and the mark again.
        expect(writes).toBe(6);
        return;
      }
    }
    await using store = await openStoreAt({ engine: 'sqlite', dataDir });
    const outcomes = await settleAll(store);
    for (const { losses } of outcomes) {
      expect(losses?.unrevoked.map(({ key }) => key.name)).toEqual(['revoked']);
      expect(losses?.wider.map(({ key }) => key.name)).toEqual(['disabled']);
      expect(losses?.gone).toMatchObject([{ name: 'gone', revocation: { by: { sequence: 10 } } }]);
    }
    await expectTakenAway(store);
    expect(await lostOf(store)).toEqual([]);
    const verdict = await verifyChain(readStore(store, systemClock), {
      repeats: 'fault',
      heads: await readHeads(store),
    });
    expect(verdict).toMatchObject({ faults: [], events: published.length + 2 });
  }
});

test('what is only looked at is not changed, however much it is', async () => {
  await using store = await openStoreAt({ engine: 'sqlite', dataDir: await putBack('looked at') });
  const [outcome] = await settleAll(store, false);
  expect(outcome?.losses?.unrevoked).toHaveLength(1);
  expect(await eventsOf(store)).toHaveLength(4);
});

async function putBack(name: string): Promise<string> {
  const dataDir = join(folder.path, name);
  await cp(join(folder.path, 'backup'), dataDir, { recursive: true });
  return dataDir;
}

async function settleAll(store: Store, apply = true): Promise<Outcome[]> {
  const options = { keyspaces: new Map(), apply, clock: systemClock, eventsPerChange: EVENTS_PER_CHANGE };
  const outcomes: Outcome[] = [];
  for (const lost of await lostOf(store)) outcomes.push(await settle(lost, store, options));
  return outcomes;
}

async function lostOf(store: Store) {
  const { organizations } = await findLost(entries(), store, { source: SOURCE, clock: systemClock });
  for (const { obstacle } of organizations) expect(obstacle).toBeUndefined();
  return organizations;
}

async function* entries() {
  yield* await Promise.resolve(toEntries(published));
}

/** Does so many writes, and then no more. */
function interrupted(store: Store, writes: number): Store {
  let left = writes;
  const through = <T>(write: () => Promise<T>): Promise<T> => {
    left -= 1;
    return left < 0 ? Promise.reject(new Error('interrupted')) : write();
  };
  return {
    ...store,
    change: (load, rule, deadline) => through(() => store.change(load, rule, deadline)),
    outbox: { ...store.outbox, remember: (positions) => through(() => store.outbox.remember(positions)) },
  };
}

async function expectTakenAway(store: Store): Promise<void> {
  const standings = new Map((await keysOf(store)).map(({ keyId, standing }) => [keyId, standing.kind]));
  expect(standings.get(ids.get('revoked') ?? '')).toBe('revoked');
  expect(standings.get(ids.get('disabled') ?? '')).toBe('disabled');
  expect(standings.get(ids.get('enabled again') ?? '')).toBe('usable');
  const own = (await eventsOf(store)).map(({ cloudEvent }) => (JSON.parse(cloudEvent) as CloudEvent).data);
  expect(own.filter(({ caller }) => caller === 'keyreeve reconcile').map(({ key }) => key?.name)).toEqual([
    'revoked',
    'disabled',
  ]);
}
