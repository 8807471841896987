/**
 * What a store keeps beside keys and events, without an event and without touching revision or etag: last uses, the form
 * of digests, budgets, peppers. Called by `describeStore`.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';

import { type BudgetAsk, type BudgetBlock, type BudgetWindow, takeBudget } from '../../src/keys/budget.js';
import { unchanged } from '../../src/keys/change.js';
import { newKeyId } from '../../src/keys/ids.js';
import type { Digest } from '../../src/keys/digest.js';
import { etagOf, type Key } from '../../src/keys/key.js';
import type { OrganizationRef } from '../../src/keys/organization.js';
import type { Store } from '../../src/store/port.js';
import { acme, aKey, aMutation, noon } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import {
  ample,
  create,
  eventsOf,
  findByDigest,
  verifiable,
  granted,
  keysOf,
  organizationsOf,
  put,
  revoke,
  rotate,
  tryCreate,
  update,
} from '../support/store-calls.js';
import type { Suite } from './store.js';

const umbrella: OrganizationRef = { keyspace: 'shop', organizationId: 'umbrella' };
const acmeElsewhere: OrganizationRef = { keyspace: 'mart', organizationId: 'acme' };
const later = (ms: number) => new Date(noon.getTime() + ms);
const times = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));
const sum = (counts: readonly number[]) => counts.reduce((total, one) => total + one, 0);

export function describeBookkeeping(name: string, { onStore, onReplicas, newPlace }: Suite): void {
  describe(`${name}: last use`, () => {
    const uses = (...entries: [Key, number][]) => new Map(entries.map(([{ keyId }, ms]) => [keyId, later(ms)]));
    const lastUses = async (store: Store, organization?: OrganizationRef) =>
      new Map((await keysOf(store, organization)).map(({ keyId, lastUseTime }) => [keyId, lastUseTime]));

    onReplicas(
      'of several times for a key the latest stays, whatever the order and whoever says it',
      async (stores) => {
        const key = await create(stores[0]);
        let latest = -Infinity;
        for (const [n, ms] of [5, 3, 9, 9, -20, 8, 10].entries()) {
          await (stores[n % 2] ?? stores[0]).recordUses(uses([key, ms]), ample());
          latest = Math.max(latest, ms);
          expect((await lastUses(stores[(n + 1) % 2] ?? stores[0])).get(key.keyId)).toEqual(later(latest));
        }
        const racing = fc.sample(fc.integer({ min: 0, max: 5000 }), 40);
        await Promise.all(racing.map((ms, n) => (stores[n % 2] ?? stores[0]).recordUses(uses([key, ms]), ample())));
        expect((await lastUses(stores[0])).get(key.keyId)).toEqual(later(Math.max(10, ...racing)));
      },
    );

    onStore('a key that was never used has none, and every read of a key that was tells it', async (store) => {
      const clientId = 'client_01h455vb4pex5vsknk084sn02q';
      const [used, unused] = await put(store, [aKey({ clientId }), aKey({ name: 'other' })]);
      if (!used || !unused) throw new Error('nothing was put');
      const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
      const repeatable = granted(await tryCreate(store, { ask: { mutation, name: 'third' } })).key;
      await store.recordUses(uses([used, 7], [repeatable, 8]), ample());
      const expected = { ...used, lastUseTime: later(7) };
      expect(await keysOf(store)).toEqual([{ ...repeatable, lastUseTime: later(8) }, unused, expected]);
      for (const selector of [
        { by: 'key_id', keyId: used.keyId },
        { by: 'client_id', clientId },
        { by: 'name', name: used.name },
      ] as const) {
        expect(await store.selectKeys(acme, selector, ample())).toEqual([expected]);
      }
      const seen = await store.change(
        {
          organization: acme,
          selector: { by: 'key_id', keyId: used.keyId },
          withLineage: true,
          keyIds: [used.keyId],
          name: used.name,
          digests: [used.digest.bytes],
        },
        (state) => unchanged([...state.selected, ...state.listed, state.nameHolder, state.digestHolder]),
        ample(),
      );
      expect(seen).toEqual(times(4, () => expected));
      expect(granted(await tryCreate(store, { ask: { mutation, name: 'third' } }))).toEqual({
        key: { ...repeatable, lastUseTime: later(8) },
        replayed: true,
      });
      expect((await findByDigest(store, used))?.key).toEqual(verifiable(used));
      expect((await findByDigest(store, used))?.key).not.toHaveProperty('lastUseTime');
    });

    onStore('a use moves neither revision nor etag, makes no event and wakes no listener', async (store) => {
      const key = await create(store);
      const before = [await organizationsOf(store), await eventsOf(store), await store.outbox.pending(10)];
      const listener = vi.fn();
      const stop = store.outbox.onCommit(listener);
      await store.recordUses(uses([key, 1]), ample());
      expect([await organizationsOf(store), await eventsOf(store), await store.outbox.pending(10)]).toEqual(before);
      const [used] = await keysOf(store);
      expect(used && [used.revision, etagOf(used)]).toEqual([key.revision, etagOf(key)]);
      expect(listener).not.toHaveBeenCalled();
      stop();
    });

    onStore('a use outlives the changes of its key, and is none of their business', async (store) => {
      const key = await create(store);
      await store.recordUses(uses([key, 1]), ample());
      const updated = await update(store, key, { labels: { team: 'a' }, etag: etagOf(key) });
      expect(updated.lastUseTime).toEqual(later(1));
      const { key: newer, previousKey } = await rotate(store, updated, { ask: { overlapMs: 60_000 } });
      expect(previousKey.lastUseTime).toEqual(later(1));
      expect(newer).not.toHaveProperty('lastUseTime');
      await store.recordUses(uses([key, 5]), ample());
      const ended = await revoke(store, key);
      expect(ended.lastUseTime).toEqual(later(5));
      // What a revoked key did before is still told when it arrives late.
      await store.recordUses(uses([key, 6], [newer, 2]), ample());
      expect([...(await lastUses(store)).values()]).toEqual([later(2), later(6)]);
      expect(await expectWhole(store)).toHaveLength(4);
    });

    onReplicas('of two first uses of a key that meet the later stays, whichever is a little ahead', async (stores) => {
      const keys = await put(
        stores[0],
        times(60, () => aKey()),
      );
      for (const [n, key] of keys.entries()) {
        const earlier = stores[0].recordUses(uses([key, 1]), ample());
        await sleep(n / 4);
        await Promise.all([earlier, stores[1].recordUses(uses([key, 2]), ample())]);
      }
      expect([...(await lastUses(stores[0])).values()]).toEqual(times(60, () => later(2)));
    });

    onReplicas('uses and changes of the same keys at the same time disturb each other in nothing', async (stores) => {
      const keys = await Promise.all(times(6, () => create(stores[0])));
      await Promise.all([
        ...times(20, (n) => stores[1].recordUses(new Map(keys.map(({ keyId }) => [keyId, later(n)])), ample())),
        ...times(20, (n) => stores[0].recordUses(new Map(keys.map(({ keyId }) => [keyId, later(n)])), ample())),
        ...keys.map((key) => update(stores[0], key, { labels: { team: 'a' } })),
      ]);
      for (const key of await keysOf(stores[1])) {
        expect(key).toMatchObject({ lastUseTime: later(19), revision: 2, labels: { team: 'a' } });
      }
      expect(await expectWhole(stores[0])).toHaveLength(12);
    });

    onStore('a batch takes keys of any organization, and ids of no key are never seen', async (store) => {
      const mine = await put(
        store,
        times(300, () => aKey()),
      );
      const [other] = await put(store, [aKey(umbrella)], umbrella);
      const [elsewhere] = await put(store, [aKey(acmeElsewhere)], acmeElsewhere);
      if (!other || !elsewhere) throw new Error('nothing was put');
      const nobody: [string, Date][] = times(300, () => [newKeyId(), later(1)]);
      const batch = new Map([...uses(...[...mine, other, elsewhere].map((key): [Key, number] => [key, 3])), ...nobody]);
      await store.recordUses(batch, ample());
      await store.recordUses(new Map(), ample());
      for (const organization of [acme, umbrella, acmeElsewhere]) {
        const seen = await lastUses(store, organization);
        expect(new Set([...seen.values()].map(String))).toEqual(new Set([String(later(3))]));
      }
      expect(await organizationsOf(store)).toHaveLength(3);
    });

    test('what was recorded is there when the store is opened again', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      const key = await (async () => {
        await using store = await place.open();
        const made = await create(store);
        await store.recordUses(uses([made, 4]), ample());
        return made;
      })();
      await using store = await place.open();
      expect((await lastUses(store)).get(key.keyId)).toEqual(later(4));
    });
  });

  describe(`${name}: digests in another form`, () => {
    const peppered = (version: number): Digest => ({
      ...aKey().digest,
      algorithm: 'hmac-sha256',
      pepperVersion: version,
    });

    onStore('a key moves to the form given and is found by that alone, otherwise as it was', async (store) => {
      const key = await create(store);
      const before = [await organizationsOf(store), await eventsOf(store)];
      const to = peppered(1);
      await store.moveDigest(key.keyId, key.digest, to, ample());
      const moved = { ...key, digest: to };
      expect(await findByDigest(store, key)).toBeUndefined();
      expect((await findByDigest(store, moved))?.key).toEqual(verifiable(moved));
      expect(await keysOf(store)).toEqual([moved]);
      expect([await organizationsOf(store), await eventsOf(store)]).toEqual(before);
    });

    onStore('a key that no longer has the form given stays as it is, and so does every other', async (store) => {
      const [first, second] = [await create(store), await create(store)];
      const [one, two] = [peppered(1), peppered(2)];
      await store.moveDigest(first.keyId, first.digest, two, ample());
      await store.moveDigest(first.keyId, first.digest, one, ample());
      await store.moveDigest(second.keyId, first.digest, one, ample());
      await store.moveDigest(newKeyId(), second.digest, one, ample());
      expect(await keysOf(store)).toEqual([second, { ...first, digest: two }]);
    });

    onStore('a key does not move to a digest that another key of the keyspace has', async (store) => {
      const [first, second] = [await create(store), await create(store)];
      const elsewhere = aKey({ ...acmeElsewhere, digest: peppered(1) });
      await put(store, [elsewhere], acmeElsewhere);
      await expect(store.moveDigest(second.keyId, second.digest, first.digest, ample())).rejects.toThrow();
      expect(await keysOf(store)).toEqual([second, first]);
      await store.moveDigest(second.keyId, second.digest, elsewhere.digest, ample());
      expect((await findByDigest(store, { ...second, digest: elsewhere.digest }))?.key.keyId).toBe(second.keyId);
    });

    onReplicas('a move and a change of the same key at the same time are both kept', async ([one, other]) => {
      for (const n of times(20, (at) => at)) {
        const key = await create(one);
        const to = peppered(1);
        const move = () => (n % 2 ? other : one).moveDigest(key.keyId, key.digest, to, ample());
        const change = () => update(n % 3 ? other : one, key, { labels: { round: String(n) } });
        await Promise.all(n % 4 < 2 ? [move(), change()] : [change(), move()]);
        const moved = await findByDigest(other, { ...key, digest: to });
        const expected = { ...key, digest: to, labels: { round: String(n) }, revision: 2 };
        expect(moved?.key).toEqual(verifiable(expected));
        expect(await findByDigest(one, key)).toBeUndefined();
      }
      await expectWhole(one);
    });

    onReplicas('a move and a revocation at the same time leave the key revoked', async ([one, other]) => {
      for (const n of times(10, (at) => at)) {
        const key = await create(one);
        const to = peppered(1);
        const answers = await Promise.all([
          revoke(n % 2 ? one : other, key),
          other.moveDigest(key.keyId, key.digest, to, ample()),
        ]);
        expect(answers[0].standing.kind).toBe('revoked');
        const found = (await findByDigest(one, { ...key, digest: to })) ?? (await findByDigest(one, key));
        expect(found?.key.standing).toEqual({ kind: 'revoked' });
      }
    });

    onStore('unrevoked keys are counted by the pepper that they are stored under', async (store) => {
      expect(await store.countDigests(ample())).toEqual(new Map());
      const stored = await put(store, [
        aKey(),
        aKey({ digest: peppered(1) }),
        aKey({ digest: peppered(1), standing: { kind: 'disabled' } }),
        aKey({ digest: peppered(1), supersededBy: newKeyId(), expireTime: later(-1) }),
        aKey({ digest: peppered(2) }),
      ]);
      await put(store, [aKey({ ...acmeElsewhere, digest: peppered(2) })], acmeElsewhere);
      const counts = async () => new Map([...(await store.countDigests(ample()))].sort(([a], [b]) => a - b));
      expect(await counts()).toEqual(new Map([[0, 1], [1, 3], [2, 2]])); // prettier-ignore
      const [bare, first, second] = stored;
      if (!bare || !first || !second) throw new Error('nothing was put');
      await revoke(store, bare);
      await store.moveDigest(first.keyId, first.digest, peppered(2), ample());
      await store.moveDigest(second.keyId, second.digest, { ...second.digest, pepperVersion: 2 }, ample());
      expect(await counts()).toEqual(new Map([[1, 1], [2, 4]])); // prettier-ignore
      const versions = await Promise.all([0, 1, 2, 3].map((version) => store.hasDigests(version, ample())));
      expect(versions).toEqual([false, true, true, false]);
    });
  });

  describe(`${name}: budgets`, () => {
    const MINUTE_MS = 60_000;
    const asking = (fields: Partial<BudgetAsk> = {}): BudgetAsk => ({
      lineageId: newKeyId(),
      windowMs: MINUTE_MS,
      limit: 100,
      want: 10,
      ...fields,
    });
    const read = (store: Store, { lineageId, windowMs, limit }: BudgetAsk) =>
      store.readBudget({ lineageId, windowMs, limit }, ample());

    onStore('within a window any sequence of takings and readings gives what the rule says', async (store) => {
      const aWindow = fc.array(
        fc.record({
          want: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
          // A plan may change in the middle.
          limit: fc.constantFrom(60, 60, 60, 20, 120),
        }),
        { minLength: 1, maxLength: 12 },
      );
      await fc.assert(
        fc.asyncProperty(aWindow, async (asks) => {
          const lineageId = newKeyId();
          let stored: BudgetWindow | undefined;
          let endsInMs = MINUTE_MS;
          for (const { want, limit } of asks) {
            const ask = asking({ lineageId, limit, want: want ?? 0 });
            const expected = takeBudget(stored, ask, noon);
            if (want !== undefined) stored = expected.window;
            const block = await (want === undefined ? read(store, ask) : store.takeBudget(ask, ample()));
            expect(block).toMatchObject({ taken: expected.block.taken, left: expected.block.left });
            expect(block.endsInMs).toBeGreaterThan(0);
            expect(block.endsInMs).toBeLessThanOrEqual(endsInMs);
            if (stored) endsInMs = block.endsInMs;
          }
        }),
        { numRuns: 30 },
      );
    });

    onStore('lineages have budgets of their own', async (store) => {
      const [one, other] = [asking({ limit: 10 }), asking({ limit: 10 })];
      await store.takeBudget(one, ample());
      expect(await read(store, one)).toMatchObject({ taken: 0, left: 0 });
      expect(await read(store, other)).toMatchObject({ taken: 0, left: 10 });
    });

    onStore('reading opens no window', async (store) => {
      const ask = asking();
      const blocks = [await read(store, ask), await read(store, ask)];
      expect(blocks).toEqual(times(2, () => ({ taken: 0, left: 100, endsInMs: MINUTE_MS })));
    });

    onReplicas('of those who take at once each gets a part, together all of it and never more', async (stores) => {
      for (const { limit, want, takers } of [
        { limit: 100, want: 7, takers: 40 },
        { limit: 5, want: 3, takers: 12 },
        { limit: 1, want: 10, takers: 10 },
        { limit: 1000, want: 1, takers: 60 },
      ]) {
        const ask = asking({ limit, want });
        const blocks = await Promise.all(times(takers, (n) => (stores[n % 2] ?? stores[0]).takeBudget(ask, ample())));
        for (const { taken } of blocks) expect(taken).toBeLessThanOrEqual(want);
        expect(sum(blocks.map(({ taken }) => taken))).toBe(Math.min(limit, want * takers));
        expect(await read(stores[1], ask)).toMatchObject({ left: Math.max(0, limit - want * takers) });
        // What each is told to be left is so as of its own taking: no two that took are told the same.
        const left = blocks.filter(({ taken }) => taken > 0).map((block) => block.left);
        expect(new Set(left).size).toBe(left.length);
      }
    });

    onReplicas(
      'once a window has ended a new one opens for all, and none admits more than the limit',
      async (stores) => {
        const ask = asking({ windowMs: 250, limit: 10, want: 3 });
        const blocks: BudgetBlock[] = [];
        const opened = () => blocks.filter(({ taken, left }) => taken > 0 && taken + left === 10).length;
        const takeUntilThreeOpened = async (store: Store) => {
          while (opened() < 3) blocks.push(await store.takeBudget(ask, ample()));
        };
        await Promise.all(times(6, (n) => takeUntilThreeOpened(stores[n % 2] ?? stores[0])));
        const all = opened();
        const taken = sum(blocks.map((block) => block.taken));
        expect(taken).toBeLessThanOrEqual(all * 10);
        for (const { endsInMs } of blocks) expect(endsInMs).toBeLessThanOrEqual(250);
      },
    );

    onStore('a spent window says when it ends, and the next one opens after that', async (store) => {
      const ask = asking({ windowMs: 200, limit: 1, want: 1 });
      expect(await store.takeBudget(ask, ample())).toMatchObject({ taken: 1, left: 0 });
      let block = await store.takeBudget(ask, ample());
      while (block.taken === 0) {
        expect(block).toMatchObject({ left: 0 });
        const { endsInMs } = block;
        expect(endsInMs).toBeGreaterThan(0);
        await new Promise((resolve) => setTimeout(resolve, Math.ceil(endsInMs)));
        block = await store.takeBudget(ask, ample());
        expect(block.left).toBe(0);
      }
      expect(block.endsInMs).toBeGreaterThan(0);
    });

    test('what was taken stays taken when the store is opened again', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      const ask = asking({ limit: 10, want: 7, windowMs: 3_600_000 });
      {
        await using store = await place.open();
        expect(await store.takeBudget(ask, ample())).toMatchObject({ taken: 7, left: 3 });
      }
      await using store = await place.open();
      expect(await read(store, ask)).toMatchObject({ taken: 0, left: 3 });
      expect(await store.takeBudget(ask, ample())).toMatchObject({ taken: 3, left: 0 });
    });

    test('a store is shared exactly where another replica can join it', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      await using store = await place.open();
      const other = await place.join(store);
      try {
        expect([store.isShared, other.isShared]).toEqual(times(2, () => other !== store));
      } finally {
        if (other !== store) await other[Symbol.asyncDispose]();
      }
    });
  });

  describe(`${name}: peppers`, () => {
    const fingerprint = (letter: string) => letter.repeat(64);
    const remembered = async (store: Store) => new Map(await store.pepperFingerprints(ample()));

    onReplicas('a fingerprint is remembered once for each version, and known to all', async ([one, other]) => {
      expect(await remembered(one)).toEqual(new Map());
      await one.rememberPeppers(new Map([[1, fingerprint('a')]]), ample());
      await other.rememberPeppers(new Map([[1, fingerprint('a')], [3, fingerprint('c')]]), ample()); // prettier-ignore
      await one.rememberPeppers(new Map(), ample());
      for (const store of [one, other]) {
        expect(await remembered(store)).toEqual(new Map([[1, fingerprint('a')], [3, fingerprint('c')]])); // prettier-ignore
      }
    });

    onStore(
      'another fingerprint for a version that is known is a fault, and nothing of it is remembered',
      async (store) => {
        await store.rememberPeppers(new Map([[2, fingerprint('b')]]), ample());
        const contradicting = new Map([[1, fingerprint('a')], [2, fingerprint('x')], [3, fingerprint('c')]]); // prettier-ignore
        await expect(store.rememberPeppers(contradicting, ample())).rejects.toThrow();
        expect(await remembered(store)).toEqual(new Map([[2, fingerprint('b')]]));
      },
    );

    onReplicas('of several fingerprints told at once for a version one is remembered', async (stores) => {
      for (const version of [1, 2, 3]) {
        const settled = await Promise.allSettled(
          times(6, (n) =>
            (stores[n % 2] ?? stores[0]).rememberPeppers(new Map([[version, fingerprint(String(n))]]), ample()),
          ),
        );
        const winner = settled.findIndex(({ status }) => status === 'fulfilled');
        expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
        expect((await remembered(stores[1])).get(version)).toBe(fingerprint(String(winner)));
      }
    });

    test('fingerprints are there when the store is opened again', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      {
        await using store = await place.open();
        await store.rememberPeppers(new Map([[1, fingerprint('a')]]), ample());
      }
      await using store = await place.open();
      expect(await remembered(store)).toEqual(new Map([[1, fingerprint('a')]]));
      await expect(store.rememberPeppers(new Map([[1, fingerprint('b')]]), ample())).rejects.toThrow();
    });
  });
}
