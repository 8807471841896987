/**
 * The promises of `src/store/port.ts` and `src/audit/outbox.ts`, tried on a real engine. An adapter's whole test is to
 * call `describeStore`; what it promises beyond the port stands beside that call.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';

import type { Leadership } from '../../src/audit/outbox.js';
import { type Rule, unchanged } from '../../src/keys/change.js';
import { Deadline, systemClock } from '../../src/keys/clock.js';
import { createKey } from '../../src/keys/create-key.js';
import type { AuditEvent, EventType } from '../../src/keys/event.js';
import { newClientId, newEventId, newKeyId } from '../../src/keys/ids.js';
import { type Key, KEY_STATES, type Standing, revise, stateOf } from '../../src/keys/key.js';
import { factsOf } from '../../src/keys/keyspace-facts.js';
import { GENESIS_HASH, type OrganizationRef, organizationPath } from '../../src/keys/organization.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import { type KeySelector, selectKey } from '../../src/keys/select-key.js';
import { StoreFault } from '../../src/store/faults.js';
import type { KeyQuery, Store } from '../../src/store/port.js';
import {
  acme,
  aKey,
  aKeyspace,
  aMutation,
  askingToCreate,
  askingToRevoke,
  drawToCreate,
  drawToRevoke,
  limitedTo,
  noon,
} from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import { Model } from '../support/model.js';
import type { StorePlace } from '../support/open-store.js';
import { startStoreProcess } from '../support/start-store-process.js';
import type { Outcome } from '../support/store-process.js';
import {
  ample,
  create,
  eventsOf,
  findByDigest,
  granted,
  keysOf,
  organizationsOf,
  put,
  revoke,
  toCreate,
  toDraft,
  tryCreate,
  tryRevoke,
  tryUpdateOrganization,
} from '../support/store-calls.js';

// A digest just made is a Buffer, one that was stored need not be.
expect.addEqualityTesters([
  (a: unknown, b: unknown) =>
    a instanceof Uint8Array && b instanceof Uint8Array ? Buffer.compare(a, b) === 0 : undefined,
]);

/** A place for one store, empty at first. */
export interface TestPlace extends AsyncDisposable {
  readonly at: StorePlace;
  open(): Promise<Store>;
  /** Opens it as another replica would while it is open; an engine of one process answers the store that is open. */
  join(open: Store): Promise<Store>;
}

const umbrella: OrganizationRef = { keyspace: 'shop', organizationId: 'umbrella' };
const acmeElsewhere: OrganizationRef = { keyspace: 'mart', organizationId: 'acme' };
const twoPlans = aKeyspace({
  plans: new Map([
    ['free', { name: 'free', keyLimit: 3 }],
    ['gold', { name: 'gold', keyLimit: 5, requestsPerMinute: 300 }],
  ]),
});
const uniqueNames = aKeyspace({ names: { required: true, unique: true, default: '' } });
/** Where a sink stands of which nothing more matters. */
const reached = { sink: 'file', lane: 0, end: 0 };
const ada = { type: 'USER', id: 'ada' } as const;
const revoked = (time = noon): Standing => ({ kind: 'revoked', time, by: ada, reason: 'OTHER', detail: '' });
const later = (ms: number) => new Date(noon.getTime() + ms);
const passed = () => Deadline.after(0, systemClock);
const times = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));
const idsOf = (keys: readonly Key[]) => keys.map(({ keyId }) => keyId);
const sequencesOf = (events: readonly AuditEvent[]) => events.map(({ sequence }) => sequence);

export function describeStore(name: string, newPlace: () => Promise<TestPlace>): void {
  /** Runs the test on a new, open store. */
  const onStore = (promise: string, run: (store: Store, place: TestPlace) => Promise<void>, timeoutMs = 60_000) =>
    test(
      promise,
      async () => {
        await using place = await newPlace();
        await using store = await place.open();
        await run(store, place);
      },
      timeoutMs,
    );

  /** Runs the test on two replicas of one store, or twice on the same where the engine has one process. */
  const onReplicas = (promise: string, run: (stores: [Store, Store]) => Promise<void>) =>
    onStore(promise, async (store, place) => {
      const other = await place.join(store);
      try {
        await run([store, other]);
      } finally {
        if (other !== store) await other[Symbol.asyncDispose]();
      }
    });

  describe(`${name}: changes`, () => {
    onStore('a record comes back in every field as it was put', async (store) => {
      const fullest = aKey({
        publicId: 'metlo.01h455vb4pex5vsknk084sn02q',
        clientId: newClientId(),
        lineageId: newKeyId(),
        rotatedFrom: newKeyId(),
        supersededBy: newKeyId(),
        name: 'Ünïcode 😀 "quoted" \\ \u2028 name',
        nameIsUnique: true,
        type: 'GENERIC',
        digest: { algorithm: 'hmac-sha256', pepperVersion: 3, bytes: aKey().digest.bytes },
        scopes: ['a:read', 'b/*'],
        labels: { team: 'päyments', empty: '', 'a.b/c-d': '$ne' },
        standing: {
          kind: 'revoked',
          time: later(1),
          by: { type: 'API_KEY', id: 'key_x' },
          reason: 'COMPROMISED',
          detail: 'löst 😀',
        },
        createdBy: { type: 'SERVICE', id: 'spiffe://x/ä' },
        expireTime: new Date('9999-12-31T23:59:59.999Z'),
        revision: 7,
      });
      const barest = aKey({ name: '', standing: { kind: 'disabled' } });
      const stored = await put(store, [fullest, barest]);
      expect(await keysOf(store)).toEqual([...stored].reverse());
      for (const key of stored) {
        expect((await findByDigest(store, key))?.key).toEqual(key);
        expect(await store.selectKeys(acme, { by: 'key_id', keyId: key.keyId }, ample())).toEqual([key]);
      }
    });

    onStore('an altered record takes the place of the one before, in every field', async (store) => {
      const [before] = await put(store, [aKey()]);
      if (!before) throw new Error('nothing was put');
      const after = revise(before, {
        name: 'renamed',
        supersededBy: newKeyId(),
        scopes: ['read'],
        labels: { a: 'b' },
        standing: { kind: 'disabled' },
        expireTime: later(5),
        digest: aKey().digest,
      });
      await store.change(
        { organization: acme },
        () => ({ answer: 'done', widens: true, put: [{ before, after }], events: [] }),
        ample(),
      );
      expect(await keysOf(store)).toEqual([after]);
      expect((await findByDigest(store, after))?.key).toEqual(after);
      expect(await findByDigest(store, before)).toBeUndefined();
    });

    onStore('a created key, its event and its organization are there together', async (store) => {
      const key = await create(store);
      expect(await keysOf(store)).toEqual([key]);
      const [event, ...others] = await expectWhole(store);
      expect(event).toMatchObject({ ...acme, type: 'key.created', keyId: key.keyId, sequence: 1, time: noon });
      expect(others).toEqual([]);
      expect(await organizationsOf(store)).toEqual([
        {
          ...acme,
          suspended: false,
          settingsRevision: 0,
          keyCount: 1,
          sequence: 1,
          hash: event?.hash,
          lastEventTime: noon,
          createTime: noon,
          updateTime: noon,
          revision: 1,
        },
      ]);
    });

    onStore('an organization keeps its plan and its suspension through changes', async (store) => {
      const set = { plan: 'gold', suspended: true };
      granted(await tryUpdateOrganization(store, { keyspace: twoPlans, ask: set }));
      await put(store, [aKey()]);
      expect(await organizationsOf(store)).toMatchObject([{ ...set, settingsRevision: 1, keyCount: 1, revision: 2 }]);
    });

    onStore('a refusal writes nothing, not even an organization', async (store) => {
      const full = limitedTo(0);
      const request = { method: 'CreateKey', requestId: 'r1', hash: 'h' };
      expect(await tryCreate(store, { keyspace: full, ask: { mutation: aMutation({ request }) } })).toEqual({
        refused: 'KEY_LIMIT_REACHED',
        limit: 0,
        plan: 'free',
      });
      expect(await organizationsOf(store)).toEqual([]);
      expect(await eventsOf(store)).toEqual([]);
      expect(await store.outbox.backlog(10)).toEqual({ depth: 0 });
      expect(await tryCreate(store, { ask: { mutation: aMutation({ request }) } })).toMatchObject({ replayed: false });
    });

    onStore('a change that writes nothing leaves the record of the organization as it was', async (store) => {
      await create(store);
      const before = await organizationsOf(store);
      expect(await store.change({ organization: acme }, () => unchanged('answer'), ample())).toBe('answer');
      expect(await organizationsOf(store)).toEqual(before);
    });

    onStore('a rule that throws writes nothing, its error arrives, and the store goes on', async (store) => {
      const broken: Rule<never> = () => {
        throw new RangeError('a defect');
      };
      await expect(store.change({ organization: acme }, broken, ample())).rejects.toThrow(RangeError);
      expect(await organizationsOf(store)).toEqual([]);
      await create(store);
      await expectWhole(store);
    });

    onStore('what contradicts the stored undoes the whole change, and is a fault and no refusal', async (store) => {
      const [holder] = await put(store, [aKey({ name: 'held', nameIsUnique: true })]);
      if (!holder) throw new Error('nothing was put');
      const before = [await keysOf(store), await eventsOf(store), await organizationsOf(store)];
      const contradictions = [
        aKey({ digest: holder.digest }),
        aKey({ name: 'held', nameIsUnique: true }),
        aKey({ keyId: holder.keyId }),
      ];
      for (const contradiction of contradictions) {
        // It comes last: what was written before it has to go again.
        const change = put(store, [aKey(), aKey({ name: 'free', nameIsUnique: true }), contradiction]);
        await expect(change).rejects.toThrow('a change contradicts what is stored');
        expect([await keysOf(store), await eventsOf(store), await organizationsOf(store)]).toEqual(before);
      }
      await expect(put(store, [aKey({ ...umbrella, digest: holder.digest })], umbrella)).rejects.toThrow();
      expect(await organizationsOf(store)).toEqual(before[2]);
      expect(await store.outbox.backlog(10)).toMatchObject({ depth: 1 });
      await create(store);
      await expectWhole(store);
    });

    onStore('an event that cannot be stored takes its key, and the request, with it', async (store) => {
      const key = aKey({ sequence: 1 });
      const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
      const type = null as unknown as EventType;
      const change = store.change(
        { organization: acme },
        () => ({
          answer: 'done',
          widens: true,
          put: [{ after: key }],
          events: [toDraft(key, { type })],
          request: { mutation, keyIds: [key.keyId] },
        }),
        ample(),
      );
      await expect(change).rejects.toThrow();
      expect(await keysOf(store)).toEqual([]);
      expect(await organizationsOf(store)).toEqual([]);
      expect(await tryCreate(store, { ask: { mutation } })).toMatchObject({ replayed: false });
    });

    onStore('a record that is not stored as the rule believes is not altered', async (store) => {
      const [stored] = await put(store, [aKey()]);
      if (!stored) throw new Error('nothing was put');
      for (const before of [revise(stored, {}), aKey()]) {
        const after = revise(before, { name: 'altered' });
        const change = store.change(
          { organization: acme },
          () => ({ answer: 'done', widens: true, put: [{ before, after }], events: [toDraft(after)] }),
          ample(),
        );
        await expect(change).rejects.toThrow();
      }
      expect(await keysOf(store)).toEqual([stored]);
      expect(await eventsOf(store)).toHaveLength(1);
    });

    onStore('a digest is unique in its keyspace, and free in another', async (store) => {
      const here = aKey();
      const there = aKey({ ...acmeElsewhere, digest: here.digest });
      await put(store, [here]);
      await put(store, [there], acmeElsewhere);
      expect((await findByDigest(store, here))?.key.keyId).toBe(here.keyId);
      expect((await findByDigest(store, there))?.key.keyId).toBe(there.keyId);
      expect(await store.findByDigest('none', here.digest.bytes, ample())).toBeUndefined();
    });

    onStore('a name that was revoked, superseded, or need not be unique is free', async (store) => {
      const name = 'deploy';
      await put(store, [
        aKey({ name, nameIsUnique: true, standing: revoked() }),
        aKey({ name, nameIsUnique: true, supersededBy: newKeyId() }),
        aKey({ name }),
        aKey({ name }),
        aKey({ name, nameIsUnique: true }),
      ]);
      await put(store, [aKey({ ...umbrella, name, nameIsUnique: true })], umbrella);
      await put(store, [aKey({ ...acmeElsewhere, name, nameIsUnique: true })], acmeElsewhere);
      const first = await create(store, { keyspace: uniqueNames, ask: { name: 'again' } });
      expect(await tryCreate(store, { keyspace: uniqueNames, ask: { name: 'again' } })).toEqual({
        refused: 'NAME_TAKEN',
      });
      await revoke(store, first);
      await create(store, { keyspace: uniqueNames, ask: { name: 'again' } });
      await expectWhole(store);
    });

    onStore('names that differ by case, accents, width or form of Unicode are different', async (store) => {
      const names = [
        'ci',
        'CI',
        'Ci',
        'cí',
        'ci\u0301',
        'ｃｉ',
        'ci ',
        'Straße',
        'STRASSE',
        'ﬁ',
        'fi',
        'ı',
        'i',
        '$ci',
        'ci.x',
      ];
      for (const name of names) await create(store, { keyspace: uniqueNames, ask: { name } });
      for (const name of names) {
        const found = await store.selectKeys(acme, { by: 'name', name }, ample());
        expect(found.map((key) => key.name)).toEqual([name]);
        expect(await tryCreate(store, { keyspace: uniqueNames, ask: { name } })).toEqual({ refused: 'NAME_TAKEN' });
      }
    });

    onStore('the permissions that an actor carries are not stored', async (store) => {
      const actor = { ...ada, permissions: ['keys.manage'] };
      const key = await create(store, { ask: { mutation: aMutation({ actor }) } });
      await tryRevoke(store, { selector: { by: 'key_id', keyId: key.keyId }, mutation: aMutation({ actor }) });
      const [stored] = await keysOf(store);
      expect(stored?.createdBy).toEqual(ada);
      expect(stored?.standing).toMatchObject({ kind: 'revoked', by: ada });
      expect(JSON.stringify([stored, await eventsOf(store)])).not.toContain('keys.manage');
    });

    onStore('no event is put before the one that it follows, whatever the clock says', async (store) => {
      for (const ms of [5, 3, 0, 7, 6]) await create(store, { draw: { now: later(ms) } });
      const events = await expectWhole(store);
      expect(events.map(({ time }) => time)).toEqual([5, 5, 5, 7, 7].map(later));
    });

    onStore('a call after its deadline changes nothing and answers nothing', async (store) => {
      const { load, rule } = toCreate({});
      const query: KeyQuery = { types: [], states: KEY_STATES, at: noon, limit: 1 };
      const calls = [
        () => store.change(load, rule, passed()),
        () => store.findByDigest('shop', aKey().digest.bytes, passed()),
        () => store.selectKeys(acme, { by: 'name', name: 'ci' }, passed()),
        () => store.listKeys(acme, query, passed()),
        () => store.countExpired(acme, noon, passed()),
        () => store.listEvents(acme, { types: [], afterSequence: 0, limit: 1 }, passed()),
        () => store.keyspaceFacts(passed()),
        () => store.rememberKeyspaces([factsOf(uniqueNames)], passed()),
        () => store.ping(passed()),
      ];
      for (const call of calls) await expect(call()).rejects.toThrow(StoreFault);
      expect(await organizationsOf(store)).toEqual([]);
      expect(await store.keyspaceFacts(ample())).toEqual([]);
    });

    onStore('any sequence of requests leaves what the rules say', async (store) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(steps, { minLength: 5, maxLength: 12 }), async (sequence) => {
          run += 1;
          const organization = { keyspace: 'shop', organizationId: `acme-${run}` };
          const model = new Model(organization);
          for (const step of sequence) {
            const { load, rule } = toRequest(step, organization, model);
            expect(await store.change({ organization, ...load }, rule, ample())).toEqual(model.change(load, rule));
          }
          expect(await keysOf(store, organization)).toEqual(
            [...model.keys.values()].sort((a, b) => b.sequence - a.sequence),
          );
          expect(await eventsOf(store, organization)).toEqual(model.events);
        }),
        { numRuns: 20 },
      );
    });
  });

  describe(`${name}: races`, () => {
    onReplicas('of those who race for the last place exactly one wins', async (stores) => {
      const keyspace = limitedTo(3);
      await create(stores[0], { keyspace });
      await create(stores[1], { keyspace });
      const answers = await Promise.all(times(8, (n) => tryCreate(stores[n % 2] ?? stores[0], { keyspace })));
      const refusals = answers.filter(isRefusal);
      expect(refusals).toEqual(times(7, () => ({ refused: 'KEY_LIMIT_REACHED', limit: 3, plan: 'free' })));
      expect(await expectWhole(stores[0])).toHaveLength(3);
    });

    onReplicas('of those who race for a name exactly one wins', async (stores) => {
      const answers = await Promise.all(
        times(8, (n) => tryCreate(stores[n % 2] ?? stores[0], { keyspace: uniqueNames, ask: { name: 'deploy' } })),
      );
      expect(answers.filter(isRefusal)).toEqual(times(7, () => ({ refused: 'NAME_TAKEN' })));
      expect(await expectWhole(stores[0])).toHaveLength(1);
    });

    onReplicas('a place that a revocation frees goes to one', async (stores) => {
      const keyspace = limitedTo(1);
      const key = await create(stores[0], { keyspace });
      const racing = times(4, (n) => tryCreate(stores[n % 2] ?? stores[0], { keyspace }));
      await Promise.all([revoke(stores[1], key), ...racing]);
      const late = await tryCreate(stores[0], { keyspace });
      const won = [...(await Promise.all(racing)), late].filter((answer) => !isRefusal(answer));
      expect(won).toHaveLength(1);
      await expectWhole(stores[0]);
    });

    onReplicas('a key that several revoke at once is revoked once, and all are told the same time', async (stores) => {
      const key = await create(stores[0]);
      const answers = await Promise.all(times(8, (n) => revoke(stores[n % 2] ?? stores[0], key, { now: later(n) })));
      expect(new Set(answers.map(({ standing }) => JSON.stringify(standing))).size).toBe(1);
      expect((await expectWhole(stores[0])).map(({ type }) => type)).toEqual(['key.created', 'key.revoked']);
    });

    onReplicas(
      'of the same request sent several times at once one makes a key, and all are answered it',
      async (stores) => {
        const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
        const answers = await Promise.all(
          times(6, (n) => tryCreate(stores[n % 2] ?? stores[0], { ask: { mutation } })),
        );
        const created = answers.map(granted);
        expect(created.filter(({ replayed }) => !replayed)).toHaveLength(1);
        expect(new Set(created.map(({ key }) => key.keyId)).size).toBe(1);
        expect(await expectWhole(stores[0])).toHaveLength(1);
      },
    );

    onReplicas(
      '32 creators on one organization make one chain, and each is answered the key that is stored',
      async (stores) => {
        const runs = new Map<string, number>();
        const answers = await Promise.all(
          times(32, async (n) => {
            const { load, rule } = toCreate({ ask: { name: `key ${n}` }, draw: { now: later(n % 5) } });
            const counted: typeof rule = (state) => {
              runs.set(`key ${n}`, (runs.get(`key ${n}`) ?? 0) + 1);
              return rule(state);
            };
            return granted(await (stores[n % 2] ?? stores[0]).change(load, counted, ample())).key;
          }),
        );
        expect(runs.size).toBe(32);
        const events = await expectWhole(stores[1]);
        expect(sequencesOf(events)).toEqual(times(32, (n) => n + 1));
        expect(await keysOf(stores[1])).toEqual(answers.sort((a, b) => b.sequence - a.sequence));
      },
    );

    onReplicas('organizations that change at the same time do not disturb each other', async (stores) => {
      const organizations = times(8, (n) => ({ keyspace: 'shop', organizationId: `org-${n}` }));
      await Promise.all(
        organizations.flatMap((organization) =>
          times(4, (n) => create(stores[n % 2] ?? stores[0], { ask: { mutation: aMutation({ organization }) } })),
        ),
      );
      for (const organization of organizations) expect(await expectWhole(stores[0], organization)).toHaveLength(4);
      const seen = (await organizationsOf(stores[1])).map(organizationPath).sort();
      expect(seen).toEqual(organizations.map(organizationPath));
    });
  });

  describe(`${name}: requests`, () => {
    const request = { method: 'CreateKey', requestId: 'r1', hash: 'h' };
    const asked = (store: Store, fields: Parameters<typeof aMutation>[0] = {}) =>
      tryCreate(store, { ask: { mutation: aMutation({ request, ...fields }) } });

    onStore('a repeat is answered the key as it is now, and makes none', async (store) => {
      const { key } = granted(await asked(store));
      expect(await asked(store)).toEqual({ key, replayed: true });
      const after = await revoke(store, key);
      expect(await asked(store)).toEqual({ key: after, replayed: true });
      expect(await expectWhole(store)).toHaveLength(2);
    });

    onStore('the same id with another body is refused', async (store) => {
      await asked(store);
      expect(await asked(store, { request: { ...request, hash: 'other' } })).toEqual({ refused: 'REQUEST_ID_REUSED' });
    });

    onStore('the same id of another caller, method, organization or keyspace is another request', async (store) => {
      const { key } = granted(await asked(store));
      const others = [
        { caller: 'portal' },
        { request: { ...request, method: 'ImportKeys' } },
        { request: { ...request, requestId: 'R1' } },
        { organization: umbrella },
        { organization: acmeElsewhere },
      ];
      for (const other of others) {
        const answer = granted(await asked(store, other));
        expect(answer.replayed).toBe(false);
        expect(answer.key.keyId).not.toBe(key.keyId);
      }
    });

    onStore('a repeated revocation is answered both keys, in their order', async (store) => {
      const older = aKey();
      const newer = aKey({ lineageId: older.lineageId, rotatedFrom: older.keyId });
      await put(store, [{ ...older, supersededBy: newer.keyId }, newer]);
      const mutation = aMutation({ request: { method: 'RevokeKey', requestId: 'r1', hash: 'h' } });
      const byName = { selector: { by: 'name', name: 'ci' } as const, mutation };
      const first = granted(await tryRevoke(store, byName));
      expect([first.key.keyId, first.previousKey?.keyId]).toEqual([newer.keyId, older.keyId]);
      expect(await tryRevoke(store, byName, { now: later(1) })).toEqual(first);
      expect(await expectWhole(store)).toHaveLength(4);
    });

    onStore('a request that changed nothing is remembered too', async (store) => {
      const key = await revoke(store, await create(store));
      const mutation = aMutation({ request: { method: 'RevokeKey', requestId: 'r1', hash: 'h' } });
      const again = () => tryRevoke(store, { selector: { by: 'key_id', keyId: key.keyId }, mutation });
      expect(await again()).toEqual({ key });
      expect(await again()).toEqual({ key });
      const other = aMutation({ request: { method: 'RevokeKey', requestId: 'r1', hash: 'other' } });
      expect(await tryRevoke(store, { selector: { by: 'key_id', keyId: key.keyId }, mutation: other })).toEqual({
        refused: 'REQUEST_ID_REUSED',
      });
      expect(await expectWhole(store)).toHaveLength(2);
    });
  });

  describe(`${name}: finding keys`, () => {
    const select = (store: Store, selector: KeySelector, organization = acme) =>
      store.selectKeys(organization, selector, ample());

    onReplicas('a change is seen by its digest as soon as it is answered', async ([one, other]) => {
      for (const n of times(20, (at) => at)) {
        const key = await create(n % 2 ? one : other);
        expect((await findByDigest(n % 2 ? other : one, key))?.key).toEqual(key);
        const ended = await revoke(n % 2 ? one : other, key);
        expect((await findByDigest(n % 2 ? other : one, key))?.key).toEqual(ended);
      }
    });

    onStore('an id or client id selects its key, revoked or not', async (store) => {
      const [usable, ended] = await put(store, [
        aKey({ clientId: newClientId() }),
        aKey({ clientId: newClientId(), standing: revoked() }),
      ]);
      for (const key of [usable, ended]) {
        if (key?.clientId === undefined) throw new Error('nothing was put');
        expect(await select(store, { by: 'key_id', keyId: key.keyId })).toEqual([key]);
        expect(await select(store, { by: 'client_id', clientId: key.clientId })).toEqual([key]);
      }
    });

    onStore("another tenant's key is not there, by any selector", async (store) => {
      const [key] = await put(store, [aKey({ clientId: newClientId() })]);
      if (key?.clientId === undefined) throw new Error('nothing was put');
      await put(store, [aKey({ ...umbrella, name: 'other' })], umbrella);
      const selectors: KeySelector[] = [
        { by: 'key_id', keyId: key.keyId },
        { by: 'client_id', clientId: key.clientId },
        { by: 'name', name: key.name },
      ];
      for (const selector of selectors) {
        expect(await select(store, selector)).toEqual([key]);
        expect(await select(store, selector, umbrella)).toEqual([]);
        expect(await select(store, selector, acmeElsewhere)).toEqual([]);
      }
    });

    onStore('a name selects its current key, with what is unrevoked of its lineage', async (store) => {
      const first = aKey({ standing: revoked() });
      const older = aKey({ lineageId: first.lineageId, rotatedFrom: first.keyId });
      const newer = aKey({ lineageId: first.lineageId, rotatedFrom: older.keyId });
      const stored = await put(store, [
        { ...first, supersededBy: older.keyId },
        { ...older, supersededBy: newer.keyId },
        newer,
        aKey({ name: 'other' }),
      ]);
      const found = await select(store, { by: 'name', name: 'ci' });
      expect(selectKey(found, { by: 'name', name: 'ci' })).toEqual(stored[2]);
      const unrevoked = found.filter(({ standing }) => standing.kind !== 'revoked');
      expect(idsOf(unrevoked).sort()).toEqual([older.keyId, newer.keyId].sort());
    });

    onStore('a renamed lineage is selected whole by its new name, and by its old one no more', async (store) => {
      const older = aKey({ name: 'before' });
      const newer = aKey({ name: 'after', lineageId: older.lineageId, rotatedFrom: older.keyId });
      await put(store, [{ ...older, supersededBy: newer.keyId }, newer]);
      const found = await select(store, { by: 'name', name: 'after' });
      expect(idsOf(found).sort()).toEqual([older.keyId, newer.keyId].sort());
      const before = { by: 'name', name: 'before' } as const;
      expect(selectKey(await select(store, before), before)).toEqual({ refused: 'KEY_NOT_FOUND' });
    });

    onStore('of several current keys of a name enough are found to see that it is ambiguous', async (store) => {
      const stored = await put(store, [...times(4, () => aKey()), aKey({ standing: revoked(later(9)) })]);
      const found = await select(store, { by: 'name', name: 'ci' });
      expect(selectKey(found, { by: 'name', name: 'ci' })).toEqual({ refused: 'NAME_AMBIGUOUS' });
      expect(idsOf(stored)).toEqual(expect.arrayContaining(idsOf(found)));
      expect(found.length).toBeLessThan(4);
    });

    onStore('a name without current key selects the one revoked last, the later made of two at once', async (store) => {
      const stored = await put(store, [
        aKey({ standing: revoked(later(1)) }),
        aKey({ standing: revoked(later(5)) }),
        aKey({ standing: revoked(later(5)) }),
        aKey({ standing: revoked(later(2)) }),
      ]);
      const byName = { by: 'name', name: 'ci' } as const;
      expect(selectKey(await select(store, byName), byName)).toEqual(stored[2]);
      const [current] = await put(store, [aKey({ standing: { kind: 'disabled' }, expireTime: later(-9) })]);
      expect(selectKey(await select(store, byName), byName)).toEqual(current);
    });

    onStore('the one revoked last comes with what is unrevoked of its lineage', async (store) => {
      const older = aKey();
      const newer = aKey({ lineageId: older.lineageId, rotatedFrom: older.keyId, standing: revoked() });
      await put(store, [{ ...older, supersededBy: newer.keyId }, newer]);
      const found = await select(store, { by: 'name', name: 'ci' });
      expect(idsOf(found).sort()).toEqual([older.keyId, newer.keyId].sort());
    });

    onStore('what nothing matches is empty, and an empty digest table answers nothing', async (store) => {
      expect(await select(store, { by: 'name', name: 'none' })).toEqual([]);
      expect(await select(store, { by: 'key_id', keyId: newKeyId() })).toEqual([]);
      expect(await select(store, { by: 'client_id', clientId: newClientId() })).toEqual([]);
      expect(await store.findByDigest('shop', aKey().digest.bytes, ample())).toBeUndefined();
    });

    onStore('a change sees the same keys as a read, and the holder of a name', async (store) => {
      const older = aKey();
      const newer = aKey({ lineageId: older.lineageId, rotatedFrom: older.keyId });
      const stored = await put(store, [{ ...older, supersededBy: newer.keyId }, newer, aKey({ standing: revoked() })]);
      const selector = { by: 'name', name: 'ci' } as const;
      const seen = await store.change(
        { organization: acme, selector, name: 'ci' },
        (state) => unchanged({ selected: state.selected, holder: state.nameHolder }),
        ample(),
      );
      expect(seen).toEqual({ selected: await select(store, selector), holder: stored[1] });
      const none = await store.change(
        { organization: acme, name: 'CI' },
        (state) => unchanged({ selected: state.selected, holder: state.nameHolder }),
        ample(),
      );
      expect(none).toEqual({ selected: [], holder: undefined });
    });
  });

  describe(`${name}: lists`, () => {
    const query: KeyQuery = { types: [], states: KEY_STATES, at: noon, limit: 500 };
    const list = (store: Store, fields: Partial<KeyQuery> = {}, organization = acme) =>
      store.listKeys(organization, { ...query, ...fields }, ample());

    onStore(
      'keys come newest first, an organization sees its own, and one that was never written none',
      async (store) => {
        const keys = [await create(store), await create(store), await create(store)];
        await create(store, { ask: { mutation: aMutation({ organization: umbrella }) } });
        expect(await list(store)).toEqual(keys.reverse());
        expect(await list(store, {}, acmeElsewhere)).toEqual([]);
      },
    );

    onStore('paging while keys are made and revoked neither repeats nor hides one', async (store) => {
      const there = await put(
        store,
        times(23, () => aKey()),
      );
      const seen: Key[] = [];
      for (;;) {
        const last = seen.at(-1);
        const page = await list(store, { limit: 4, ...(last && { beforeSequence: last.sequence }) });
        if (page.length === 0) break;
        seen.push(...page);
        await Promise.all([create(store), create(store), revoke(store, page[0] ?? there[0] ?? aKey())]);
      }
      expect(idsOf(seen)).toEqual(idsOf(there).reverse());
    });

    onStore('states are judged at the given time', async (store) => {
      await put(store, [
        aKey({ name: 'lasting' }),
        aKey({ name: 'short', expireTime: later(10) }),
        aKey({ name: 'expired', expireTime: noon }),
        aKey({ name: 'disabled', standing: { kind: 'disabled' } }),
        aKey({ name: 'disabled, expired', standing: { kind: 'disabled' }, expireTime: noon }),
        aKey({ name: 'superseded', supersededBy: newKeyId() }),
        aKey({ name: 'revoked', standing: revoked() }),
        aKey({ name: 'revoked, expired', standing: revoked(), expireTime: noon }),
      ]);
      const all = await list(store);
      expect(all).toHaveLength(8);
      const subsets = fc.uniqueArray(fc.constantFrom(...KEY_STATES));
      for (const at of [later(-1), noon, later(9), later(10)]) {
        for (const states of [...KEY_STATES.map((state) => [state]), ...fc.sample(subsets, 8)]) {
          const expected = all.filter((key) => states.includes(stateOf(key, at)));
          expect(await list(store, { states, at })).toEqual(expected);
        }
      }
    });

    onStore('types filter, together with states and pages', async (store) => {
      const types = ['GENERIC', 'AWS', 'GCP'];
      await put(
        store,
        times(30, (n) => aKey({ type: types[n % 3] ?? '', standing: n % 2 ? { kind: 'usable' } : revoked() })),
      );
      const all = await list(store);
      for (const wanted of [['AWS'], ['AWS', 'GCP'], ['aws'], ['NONE', 'GENERIC']]) {
        expect(await list(store, { types: wanted })).toEqual(all.filter(({ type }) => wanted.includes(type)));
      }
      const [first, second, third, ...rest] = all.filter(
        ({ type, standing }) => type === 'AWS' && standing.kind === 'usable',
      );
      const usable = { types: ['AWS'], states: ['ACTIVE'] as const };
      expect(await list(store, { ...usable, limit: 3 })).toEqual([first, second, third]);
      expect(await list(store, { ...usable, beforeSequence: third?.sequence ?? 0 })).toEqual(rest);
    });

    onStore('the expired that are counted hold a place: neither revoked, disabled nor superseded', async (store) => {
      await put(store, [
        aKey({ expireTime: noon }),
        aKey({ expireTime: later(5) }),
        aKey({ expireTime: later(-5) }),
        aKey(),
        aKey({ expireTime: noon, standing: revoked() }),
        aKey({ expireTime: noon, standing: { kind: 'disabled' } }),
        aKey({ expireTime: noon, supersededBy: newKeyId() }),
      ]);
      await put(store, [aKey({ ...umbrella, expireTime: noon })], umbrella);
      const counted = [later(-6), later(-1), noon, later(5)].map((at) => store.countExpired(acme, at, ample()));
      expect(await Promise.all(counted)).toEqual([0, 1, 2, 3]);
      expect(await store.countExpired(acmeElsewhere, noon, ample())).toBe(0);
    });
  });

  describe(`${name}: events`, () => {
    const read = (store: Store, fields: Partial<Parameters<Store['listEvents']>[1]> = {}, organization = acme) =>
      store.listEvents(organization, { types: [], afterSequence: 0, limit: 500, ...fields }, ample());

    onStore('events are read by key, type, place and number, always with the head', async (store) => {
      const keys = [await create(store), await create(store), await create(store)];
      for (const key of keys) await revoke(store, key);
      const { events, head } = await read(store);
      expect(sequencesOf(events)).toEqual([1, 2, 3, 4, 5, 6]);
      expect(head).toEqual({ sequence: 6, hash: events[5]?.hash });
      const filters = [
        { fields: { keyId: keys[1]?.keyId ?? '' }, sequences: [2, 5] },
        { fields: { types: ['key.revoked' as const] }, sequences: [4, 5, 6] },
        { fields: { types: ['key.revoked' as const, 'key.created' as const], limit: 4 }, sequences: [1, 2, 3, 4] },
        { fields: { types: ['key.rotated' as const] }, sequences: [] },
        { fields: { keyId: keys[1]?.keyId ?? '', types: ['key.revoked' as const] }, sequences: [5] },
        { fields: { keyId: keys[1]?.keyId ?? '', afterSequence: 2 }, sequences: [5] },
        { fields: { afterSequence: 3, limit: 2 }, sequences: [4, 5] },
        { fields: { afterSequence: 6 }, sequences: [] },
        { fields: { keyId: newKeyId() }, sequences: [] },
      ];
      for (const { fields, sequences } of filters) {
        const page = await read(store, fields);
        expect(page).toEqual({ events: sequences.map((sequence) => events[sequence - 1]), head });
      }
    });

    onStore('an organization that was never written has no events and the head before the first', async (store) => {
      await create(store);
      for (const organization of [umbrella, acmeElsewhere]) {
        expect(await read(store, {}, organization)).toEqual({ events: [], head: { sequence: 0, hash: GENESIS_HASH } });
      }
    });

    onReplicas('events and head are of the same moment while others write', async ([one, other]) => {
      const writers = { busy: true };
      const written = Promise.all(times(24, () => create(one))).finally(() => (writers.busy = false));
      do {
        const { events, head } = await read(other);
        expect(head).toEqual({ sequence: events.length, hash: events.at(-1)?.hash ?? GENESIS_HASH });
      } while (writers.busy);
      await written;
      await expectWhole(other);
    });

    onStore(
      'the same organization id in two keyspaces names two tenants, each with a chain of its own',
      async (store) => {
        for (const organization of [acme, acmeElsewhere, acme]) {
          await put(store, [aKey({ ...organization, name: 'ci', nameIsUnique: false })], organization);
        }
        expect(await expectWhole(store, acme)).toHaveLength(2);
        expect(await expectWhole(store, acmeElsewhere)).toHaveLength(1);
      },
    );

    onStore('every organization that was written is told of once', async (store) => {
      const organizations = [acme, umbrella, acmeElsewhere, { keyspace: 'shop', organizationId: 'ACME' }];
      for (const organization of organizations)
        await put(store, [aKey(organization), aKey(organization)], organization);
      const seen = (await organizationsOf(store)).map(organizationPath).sort();
      expect(seen).toEqual(organizations.map(organizationPath).sort());
    });
  });

  describe(`${name}: outbox`, () => {
    onStore('what is committed is pending, byte for byte as it is listed, until it is published', async (store) => {
      const key = await create(store);
      await revoke(store, key);
      const events = await eventsOf(store);
      expect(await store.outbox.pending(10)).toEqual(events);
      expect(await store.outbox.pending(1)).toEqual(events.slice(0, 1));
      await store.outbox.markPublished(events.slice(0, 1), reached);
      expect(await store.outbox.pending(10)).toEqual(events.slice(1));
      await store.outbox.markPublished(events, reached);
      await store.outbox.markPublished([], reached);
      expect(await store.outbox.pending(10)).toEqual([]);
      expect(await eventsOf(store)).toEqual(events);
    });

    onReplicas(
      'how far each lane of a sink has come is kept by its sink, and publishing never takes it back',
      async ([one, other]) => {
        const at = (lane: number, end: number, sink = 'kafka/audit') => ({ sink, lane, end });
        expect(await one.outbox.positions('kafka/audit')).toEqual(new Map());
        for (const position of [at(0, 7), at(11, 5), at(0, 6), at(0, 9, 'file')]) {
          await other.outbox.markPublished([], position);
        }
        expect(await one.outbox.positions('kafka/audit')).toEqual(
          new Map([
            [0, 7],
            [11, 5],
          ]),
        );
        await one.outbox.remember([at(0, 2), at(3, 1)]);
        expect(await other.outbox.positions('kafka/audit')).toEqual(
          new Map([
            [0, 2],
            [11, 5],
            [3, 1],
          ]),
        );
        expect(await other.outbox.positions('file')).toEqual(new Map([[0, 9]]));
      },
    );

    onReplicas(
      'while others write, each organization comes in order and without gap, every event once',
      async ([one, other]) => {
        const organizations = [acme, umbrella, acmeElsewhere];
        const writers = { busy: true };
        const written = Promise.all(
          times(60, (n) => {
            const organization = organizations[n % 3] ?? acme;
            // Clocks of several replicas: some run ahead, some behind.
            const draw = { now: later((n * 37) % 11) };
            return create(n % 2 ? one : other, { ask: { mutation: aMutation({ organization }) }, draw });
          }),
        ).finally(() => (writers.busy = false));
        const published = new Map<string, number>();
        const publish = async () => {
          const events = await other.outbox.pending(7);
          for (const event of events) {
            const path = organizationPath(event);
            expect(event.sequence).toBe((published.get(path) ?? 0) + 1);
            published.set(path, event.sequence);
          }
          await other.outbox.markPublished(events, reached);
          return events.length;
        };
        while (writers.busy) await publish();
        await written;
        while ((await publish()) > 0);
        expect([...published.values()]).toEqual([20, 20, 20]);
      },
    );

    onStore('organizations are mixed by time, so that none waits for all of another', async (store) => {
      for (const ms of [0, 1, 2, 3]) await create(store, { draw: { now: later(ms * 10) } });
      const late = { ask: { mutation: aMutation({ organization: umbrella }) }, draw: { now: later(15) } };
      await create(store, late);
      const pending = await store.outbox.pending(10);
      expect(pending.map(({ organizationId, sequence }) => `${organizationId} ${sequence}`)).toEqual([
        'acme 1',
        'acme 2',
        'umbrella 1',
        'acme 3',
        'acme 4',
      ]);
    });

    onStore('organizations that are not wanted take no place of the limit', async (store) => {
      await put(
        store,
        times(20, () => aKey()),
      );
      for (const organization of [umbrella, acmeElsewhere]) {
        await put(
          store,
          times(3, () => aKey(organization)),
          organization,
        );
      }
      const pending = await store.outbox.pending(4, ({ keyspace, organizationId }) => {
        return organizationPath({ keyspace, organizationId }) !== organizationPath(acme);
      });
      expect(pending).toHaveLength(4);
      for (const organization of [umbrella, acmeElsewhere]) {
        const sequences = sequencesOf(
          pending.filter((event) => organizationPath(event) === organizationPath(organization)),
        );
        expect(sequences).toEqual([1, 2, 3].slice(0, sequences.length));
      }
      const shop = await store.outbox.pending(500, ({ keyspace }) => keyspace === 'shop');
      expect(shop).toHaveLength(23);
      expect(await store.outbox.pending(500, () => false)).toEqual([]);
      expect(await store.outbox.pending(500, () => true)).toHaveLength(26);
    });

    onStore('the backlog tells its depth up to the limit, and its oldest event', async (store) => {
      expect(await store.outbox.backlog(5)).toEqual({ depth: 0 });
      for (const ms of [10, 20, 30]) await create(store, { draw: { now: later(ms) } });
      const early = { ask: { mutation: aMutation({ organization: umbrella }) }, draw: { now: later(5) } };
      await create(store, early);
      expect(await store.outbox.backlog(100)).toEqual({ depth: 4, oldestTime: later(5) });
      expect(await store.outbox.backlog(2)).toEqual({ depth: 2, oldestTime: later(5) });
      await store.outbox.markPublished(await eventsOf(store, umbrella), reached);
      expect(await store.outbox.backlog(100)).toEqual({ depth: 3, oldestTime: later(10) });
      await store.outbox.markPublished(await eventsOf(store), reached);
      expect(await store.outbox.backlog(100)).toEqual({ depth: 0 });
    });

    onStore('a listener hears of commits with events, of nothing else, and not after it was stopped', async (store) => {
      const listener = vi.fn();
      const stop = store.outbox.onCommit(listener);
      const key = await create(store);
      await vi.waitFor(() => expect(listener).toHaveBeenCalledTimes(1));
      expect(await store.outbox.pending(10)).toHaveLength(1);
      await store.change({ organization: acme }, () => unchanged('nothing'), ample());
      await tryCreate(store, { keyspace: limitedTo(0) });
      await revoke(store, key);
      await vi.waitFor(() => expect(listener).toHaveBeenCalledTimes(2));
      stop();
      await create(store);
      expect(listener).toHaveBeenCalledTimes(2);
    });

    onReplicas(
      'of those who race for leadership exactly one gets it, at first and at each change of hands',
      async (stores) => {
        expect(await stores[0].outbox.readLeadership()).toBeUndefined();
        let before: Leadership | undefined;
        for (const count of [1, 2, 3, 4, 5]) {
          const expected = before;
          const racers = times(6, (n) => ({ holder: `replica-${n}`, count }));
          const won = await Promise.all(
            racers.map((next, n) => (stores[n % 2] ?? stores[0]).outbox.replaceLeadership(expected, next)),
          );
          expect(won.filter(Boolean)).toHaveLength(1);
          before = racers[won.indexOf(true)];
          for (const store of stores) expect(await store.outbox.readLeadership()).toEqual(before);
        }
      },
    );

    onStore('leadership is not replaced for one who expected another record', async (store) => {
      const first = { holder: 'a', count: 1 };
      const next = { holder: 'b', count: 2 };
      expect(await store.outbox.replaceLeadership(first, next)).toBe(false);
      expect(await store.outbox.readLeadership()).toBeUndefined();
      expect(await store.outbox.replaceLeadership(undefined, first)).toBe(true);
      for (const wrong of [undefined, { holder: 'a', count: 2 }, { holder: 'b', count: 1 }]) {
        expect(await store.outbox.replaceLeadership(wrong, next)).toBe(false);
      }
      expect(await store.outbox.readLeadership()).toEqual(first);
      expect(await store.outbox.replaceLeadership(first, next)).toBe(true);
      expect(await store.outbox.readLeadership()).toEqual(next);
    });
  });

  describe(`${name}: keyspaces`, () => {
    onStore(
      'the facts of each are remembered as last told, with whether unrevoked keys rely on them',
      async (store) => {
        const shop = factsOf(aKeyspace());
        const mart = { name: 'mart', kind: 'pair' as const, prefix: '', bodyLength: 32, uniqueNames: true };
        expect(await store.keyspaceFacts(ample())).toEqual([]);
        await store.rememberKeyspaces([shop, mart], ample());
        const facts = async () => (await store.keyspaceFacts(ample())).sort((a, b) => (a.name < b.name ? -1 : 1));
        expect(await facts()).toEqual([
          { ...mart, hasUnrevokedKeys: false },
          { ...shop, hasUnrevokedKeys: false },
        ]);
        const key = await create(store);
        await put(store, [aKey({ ...acmeElsewhere, standing: revoked() })], acmeElsewhere);
        expect((await facts()).map((one) => one.hasUnrevokedKeys)).toEqual([false, true]);
        // A replica with an older file must not make the others' keyspaces forgotten.
        await store.rememberKeyspaces([{ ...shop, prefix: 'new_', uniqueNames: true }], ample());
        expect(await facts()).toEqual([
          { ...mart, hasUnrevokedKeys: false },
          { ...shop, prefix: 'new_', uniqueNames: true, hasUnrevokedKeys: true },
        ]);
        await revoke(store, key);
        expect((await facts()).map((one) => one.hasUnrevokedKeys)).toEqual([false, false]);
      },
    );

    onStore('disabled, expired and superseded keys rely on their keyspace too', async (store) => {
      await store.rememberKeyspaces(
        ['a', 'b', 'c', 'd'].map((one) => ({ ...factsOf(aKeyspace()), name: one })),
        ample(),
      );
      const unusable: Partial<Key>[] = [
        { keyspace: 'a', standing: { kind: 'disabled' } },
        { keyspace: 'b', expireTime: new Date(0) },
        { keyspace: 'c', supersededBy: newKeyId() },
      ];
      for (const fields of unusable) {
        const key = aKey(fields);
        await put(store, [key], key);
      }
      const relied = (await store.keyspaceFacts(ample())).filter((one) => one.hasUnrevokedKeys);
      expect(relied.map((one) => one.name).sort()).toEqual(['a', 'b', 'c']);
    });
  });

  describe(`${name}: life`, () => {
    test('what was stored is there when the store is opened again', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
      const before = await (async () => {
        await using store = await place.open();
        const key = await create(store, { ask: { mutation } });
        await revoke(store, await create(store));
        await store.rememberKeyspaces([factsOf(aKeyspace())], ample());
        await store.outbox.markPublished((await store.outbox.pending(10)).slice(0, 1), reached);
        return {
          key,
          keys: await keysOf(store),
          events: await eventsOf(store),
          pending: await store.outbox.pending(10),
        };
      })();
      await using store = await place.open();
      expect(await keysOf(store)).toEqual(before.keys);
      expect(await expectWhole(store)).toEqual(before.events);
      expect(await store.outbox.pending(10)).toEqual(before.pending);
      expect(await store.keyspaceFacts(ample())).toMatchObject([{ name: 'shop', hasUnrevokedKeys: true }]);
      expect(await tryCreate(store, { ask: { mutation } })).toEqual({ key: before.key, replayed: true });
    });

    test(
      'whatever was acknowledged before SIGKILL is there, nothing by halves, and changes go on',
      {
        timeout: 120_000,
      },
      async () => {
        await using place = await newPlace();
        const acknowledged = new Set<string>();
        const hearKeys = (outcome: Outcome | undefined) => {
          if (!outcome || !('keyIds' in outcome)) throw new Error(`no key was made: ${outcome?.failed ?? 'it ended'}`);
          for (const keyId of outcome.keyIds) acknowledged.add(keyId);
        };
        for (const killAfter of fc.sample(fc.integer({ min: 1, max: 60 }), 4)) {
          await using child = startStoreProcess(place.at);
          expect(await child.hear()).toEqual({ did: 'open', keyIds: [] });
          child.tell('createForever');
          for (let heard = 0; heard < killAfter; heard += 1) hearKeys(await child.hear());
          // At any moment, and not always just after an answer.
          await sleep(Math.random() * 5);
          await child.kill();
          // What it had said and nobody had read yet was acknowledged all the same.
          for (let rest = await child.hear(); rest; rest = await child.hear()) hearKeys(rest);

          await using store = await place.open();
          const events = await expectWhole(store);
          const stored = new Set(events.map(({ keyId }) => keyId));
          expect([...acknowledged].filter((keyId) => !stored.has(keyId))).toEqual([]);
          expect(await store.outbox.pending(1_000_000)).toEqual(events);
          await create(store);
          await expectWhole(store);
        }
      },
    );

    test(
      'a store that is closed lets finish what runs or fails it cleanly, and answers no more',
      { timeout: 60_000 },
      async () => {
        await using place = await newPlace();
        const store = await place.open();
        const running = times(16, () => create(store));
        const closing = store[Symbol.asyncDispose]();
        const settled = await Promise.allSettled(running);
        await closing;
        const failed = settled.filter((one) => one.status === 'rejected');
        for (const { reason } of failed) expect(reason).toMatchObject({ name: 'StoreFault', kind: 'unavailable' });

        const closed = { name: 'StoreFault', kind: 'unavailable' };
        await expect(create(store)).rejects.toMatchObject(closed);
        await expect(keysOf(store)).rejects.toMatchObject(closed);
        await expect(store.ping(ample())).rejects.toMatchObject(closed);
        await expect(store.outbox.pending(1)).rejects.toMatchObject(closed);
        await expect(organizationsOf(store)).rejects.toMatchObject(closed);
        await store[Symbol.asyncDispose]();

        await using again = await place.open();
        const stored = idsOf(await keysOf(again));
        const finished = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value.keyId] : []));
        expect(stored).toEqual(expect.arrayContaining(finished));
        await expectWhole(again);
      },
    );

    onStore('a store that is open says that it can serve', async (store) => {
      await store.ping(ample());
      expect(await organizationsOf(store)).toEqual([]);
    });
  });
}

type Step =
  | { do: 'create'; name: string; at: number; ttlMs: number | undefined; requestId: string | undefined }
  | { do: 'revoke'; nth: number; by: 'key_id' | 'name'; name: string; at: number };

const names = fc.constantFrom('a', 'b', 'c', 'd');
const at = fc.integer({ min: -5000, max: 60_000 });
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const steps: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('create' as const),
    name: names,
    at,
    ttlMs: maybe(fc.integer({ min: 1, max: 30_000 })),
    requestId: maybe(fc.constantFrom('r1', 'r2')),
  }),
  fc.record({
    do: fc.constant('revoke' as const),
    nth: fc.nat({ max: 5 }),
    by: fc.constantFrom('key_id' as const, 'name' as const),
    name: names,
    at,
  }),
);

const threeUniqueNames = limitedTo(3, { names: { required: true, unique: true, default: '' } });

function toRequest(step: Step, organization: OrganizationRef, model: Model) {
  const now = later(step.at);
  if (step.do === 'create') {
    const { name, requestId, ttlMs } = step;
    const request = requestId === undefined ? undefined : { method: 'CreateKey', requestId, hash: name };
    const ask = askingToCreate({
      name,
      mutation: aMutation({ organization, ...(request && { request }) }),
      ...(ttlMs !== undefined && { expiration: { kind: 'after', ttlMs } }),
    });
    const draw = drawToCreate(threeUniqueNames, { now });
    const rule: Rule<unknown> = (state) => createKey(state, ask, threeUniqueNames, draw);
    return { load: { name, ...(request && { request: { caller: 'console', ...request } }) }, rule };
  }
  const keyId = [...model.keys.keys()][step.nth] ?? newKeyId();
  const selector: KeySelector = step.by === 'name' ? { by: 'name', name: step.name } : { by: 'key_id', keyId };
  const ask = askingToRevoke({ selector, mutation: aMutation({ organization }) });
  const draw = drawToRevoke({ now, eventIds: [newEventId(), newEventId()] });
  const rule: Rule<unknown> = (state) => revokeKey(state, ask, draw);
  return { load: { selector }, rule };
}
