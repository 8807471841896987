/**
 * The promises of `src/store/port.ts` and `src/audit/outbox.ts`, tried on a real engine. An adapter's whole test is to
 * call `describeStore`; what it promises beyond the port stands beside that call.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';

import type { Leadership } from '../../src/audit/outbox.js';
import { seal } from '../../src/keys/chain.js';
import { type Load, type Rule, unchanged } from '../../src/keys/change.js';
import { Deadline, systemClock } from '../../src/keys/clock.js';
import type { AuditEvent, EventDraft, EventType } from '../../src/keys/event.js';
import { newClientId, newKeyId } from '../../src/keys/ids.js';
import { etagOf, type Key, KEY_STATES, type Standing, revise, stateOf } from '../../src/keys/key.js';
import { keyspaceFactsOf } from '../../src/keys/keyspace-facts.js';
import {
  etagOfOrganization,
  GENESIS_HASH,
  newOrganization,
  type Organization,
  type OrganizationRef,
  organizationPath,
} from '../../src/keys/organization.js';
import { isRefusal, type Refusal } from '../../src/keys/refusal.js';
import { type KeySelector, selectKey } from '../../src/keys/select-key.js';
import type { UpdateOrganization } from '../../src/keys/update-organization.js';
import { StoreFault } from '../../src/store/faults.js';
import type { KeyQuery, Store } from '../../src/store/port.js';
import { acme, aKey, aKeyspace, aMutation, askingToImport, limitedTo, noon, SOURCE } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import { Model } from '../support/model.js';
import { openStoreAt, type StorePlace } from '../support/open-store.js';
import { step, toRequest } from '../support/requests.js';
import { CHILDS_BUDGET, startStoreProcess } from '../support/start-store-process.js';
import type { Outcome } from '../support/store-process.js';
import {
  ample,
  create,
  eventsOf,
  findByDigest,
  verifiable,
  verifiableOrganization,
  granted,
  keysOf,
  organizationsOf,
  put,
  revoke,
  rotate,
  toCreate,
  toDraft,
  tryCreate,
  tryImport,
  tryRevoke,
  tryRotate,
  tryUpdate,
  tryUpdateOrganization,
  update,
} from '../support/store-calls.js';
import { describeBookkeeping } from './bookkeeping.js';

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

type Run<Subject> = (promise: string, run: (subject: Subject, place: TestPlace) => Promise<void>) => void;

/** What each part of the suite is written with. */
export interface Suite {
  readonly newPlace: () => Promise<TestPlace>;
  /** Runs the test on a new, open store. */
  readonly onStore: Run<Store>;
  /** Runs the test on two replicas of one store, or twice on the same where the engine has one process. */
  readonly onReplicas: Run<[Store, Store]>;
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
const grantedOf = <A>(answers: readonly (A | Refusal)[]): A[] =>
  answers.flatMap((answer) => (isRefusal(answer) ? [] : [answer]));
const sequencesOf = (events: readonly AuditEvent[]) => events.map(({ sequence }) => sequence);

export function describeStore(name: string, newPlace: () => Promise<TestPlace>): void {
  const onStore: Suite['onStore'] = (promise, run) =>
    test(promise, { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      await using store = await place.open();
      await run(store, place);
    });

  const onReplicas: Suite['onReplicas'] = (promise, run) =>
    onStore(promise, async (store, place) => {
      const other = await place.join(store);
      try {
        await run([store, other], place);
      } finally {
        if (other !== store) await other[Symbol.asyncDispose]();
      }
    });

  describeBookkeeping(name, { newPlace, onStore, onReplicas });

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
        expect((await findByDigest(store, key))?.key).toEqual(verifiable(key));
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
      expect((await findByDigest(store, after))?.key).toEqual(verifiable(after));
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
      const budget = { lineageId: newKeyId(), windowMs: 60_000, limit: 5 };
      const calls = [
        () => store.change(load, rule, passed()),
        () => store.findByDigest('shop', aKey().digest.bytes, passed()),
        () => store.selectKeys(acme, { by: 'name', name: 'ci' }, passed()),
        () => store.listKeys(acme, query, passed()),
        () => store.countExpired(acme, noon, passed()),
        () => store.listEvents(acme, { types: [], afterSequence: 0, limit: 1 }, passed()),
        () => store.findOrganization(acme, passed()),
        () => store.recordUses(new Map([[newKeyId(), noon]]), passed()),
        () => store.moveDigest(newKeyId(), aKey().digest, aKey().digest, passed()),
        () => store.countDigests(passed()),
        () => store.hasDigests(1, passed()),
        () => store.takeBudget({ ...budget, want: 1 }, passed()),
        () => store.readBudget(budget, passed()),
        () => store.pepperFingerprints(passed()),
        () => store.rememberPeppers(new Map([[1, 'f'.repeat(64)]]), passed()),
        () => store.keyspaceFacts(passed()),
        () => store.rememberKeyspaces([keyspaceFactsOf(uniqueNames)], passed()),
        () => store.ping(passed()),
      ];
      for (const call of calls) await expect(call()).rejects.toThrow(StoreFault);
      expect(await organizationsOf(store)).toEqual([]);
      expect(await store.keyspaceFacts(ample())).toEqual([]);
      expect(await store.pepperFingerprints(ample())).toEqual(new Map());
      expect(await store.readBudget(budget, ample())).toMatchObject({ left: 5 });
    });

    onStore('any sequence of requests leaves what the rules say', async (store) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 20 }), async (sequence) => {
          run += 1;
          const organization = { keyspace: 'shop', organizationId: `acme-${run}` };
          const model = new Model(organization);
          for (const one of sequence) {
            const { load, rule } = toRequest(one, model, organization);
            expect(await store.change({ organization, ...load }, rule, ample())).toEqual(model.change(load, rule));
          }
          expect(await keysOf(store, organization)).toEqual(
            [...model.keys.values()].sort((a, b) => b.sequence - a.sequence),
          );
          expect(await eventsOf(store, organization)).toEqual(model.events);
          expect(await store.findOrganization(organization, ample())).toEqual(model.organization);
          for (const key of model.keys.values()) {
            expect(await findByDigest(store, key)).toEqual({
              key: verifiable(key),
              organization: verifiableOrganization(model.organization),
            });
          }
        }),
        { numRuns: 30 },
      );
    });
  });

  describe(`${name}: organizations`, () => {
    const set = async (store: Store, ask: Partial<UpdateOrganization>, organization = acme) =>
      granted(
        await tryUpdateOrganization(store, {
          keyspace: twoPlans,
          ask: { mutation: aMutation({ organization }), ...ask },
        }),
      );

    onStore('one that was never written has what holds for a new one, and reading it writes nothing', async (store) => {
      await create(store);
      for (const organization of [umbrella, acmeElsewhere]) {
        expect(await store.findOrganization(organization, ample())).toEqual(newOrganization(organization));
      }
      expect(await organizationsOf(store)).toHaveLength(1);
    });

    onStore('settings are stored with their event, count their changes, and can be unset again', async (store) => {
      await set(store, { plan: 'gold' });
      const first = await store.findOrganization(acme, ample());
      expect(first).toMatchObject({ plan: 'gold', suspended: false, settingsRevision: 1, sequence: 1, keyCount: 0 });
      await set(store, { suspended: true });
      await set(store, { plan: '' });
      const last = await store.findOrganization(acme, ample());
      expect(last).toMatchObject({ suspended: true, settingsRevision: 3, sequence: 3 });
      expect(last).not.toHaveProperty('plan');
      const events = await expectWhole(store);
      expect(events.map(({ type, keyId }) => [type, keyId])).toEqual(times(3, () => ['organization.updated', '']));
      expect(await store.outbox.pending(10)).toEqual(events);
    });

    onStore('keys that come and go leave the settings and their revision as they are', async (store) => {
      const set1 = await set(store, { plan: 'gold' });
      const key = await create(store, { keyspace: twoPlans });
      await revoke(store, key);
      const organization = await store.findOrganization(acme, ample());
      expect(organization).toMatchObject({ plan: 'gold', settingsRevision: 1, revision: 3 });
      expect(etagOfOrganization(organization)).toBe(etagOfOrganization(set1));
    });

    onReplicas(
      'a suspension is seen with every key as soon as it is answered, and so is its end',
      async ([one, other]) => {
        const keys = [await create(one), await create(other)];
        for (const n of times(10, (at) => at)) {
          const suspended = n % 2 === 0;
          await set(n % 3 ? one : other, { suspended });
          const stored = await (n % 3 ? other : one).findOrganization(acme, ample());
          expect(stored).toMatchObject({ suspended, settingsRevision: n + 1 });
          for (const key of keys) {
            const found = await findByDigest(n % 3 ? other : one, key);
            expect(found?.organization).toEqual(verifiableOrganization(stored));
          }
        }
      },
    );

    onStore('a key is found with its own organization, as it stands in its own keyspace', async (store) => {
      await set(store, { plan: 'gold' });
      await set(store, { suspended: true }, acmeElsewhere);
      const [here] = await put(store, [aKey()]);
      const [there] = await put(store, [aKey(acmeElsewhere)], acmeElsewhere);
      if (!here || !there) throw new Error('nothing was put');
      expect((await findByDigest(store, here))?.organization).toEqual(
        verifiableOrganization(await store.findOrganization(acme, ample())),
      );
      expect((await findByDigest(store, there))?.organization).toMatchObject({ ...acmeElsewhere, suspended: true });
    });

    onStore('a repeated request is known though it names no key', async (store) => {
      const mutation = aMutation({ request: { method: 'UpdateOrganization', requestId: 'r1', hash: 'h' } });
      await set(store, { mutation, plan: 'gold' });
      await set(store, { plan: 'free' });
      expect(await set(store, { mutation, plan: 'gold' })).toMatchObject({ plan: 'free', settingsRevision: 2 });
      const other = aMutation({ request: { method: 'UpdateOrganization', requestId: 'r1', hash: 'other' } });
      expect(await tryUpdateOrganization(store, { keyspace: twoPlans, ask: { mutation: other } })).toEqual({
        refused: 'REQUEST_ID_REUSED',
      });
      expect(await expectWhole(store)).toHaveLength(2);
    });

    onReplicas('of those who change settings under the same etag exactly one wins', async (stores) => {
      const { settingsRevision } = await set(stores[0], { plan: 'gold' });
      const etag = etagOfOrganization(await stores[1].findOrganization(acme, ample()));
      const answers = await Promise.all(
        times(6, (n) =>
          tryUpdateOrganization(stores[n % 2] ?? stores[0], {
            keyspace: twoPlans,
            ask: { etag, ...(n % 3 ? { suspended: true } : { plan: 'free' }) },
          }),
        ),
      );
      expect(answers.filter(isRefusal)).toEqual(times(5, () => ({ refused: 'ETAG_MISMATCH' })));
      expect(await stores[0].findOrganization(acme, ample())).toMatchObject({ settingsRevision: settingsRevision + 1 });
      expect(await expectWhole(stores[0])).toHaveLength(2);
    });
  });

  describe(`${name}: events that were lost`, () => {
    /** Events that follow the head in the sink, and in no store any more. */
    const lost = (head: Organization, count: number, key: Key) =>
      seal(
        head,
        times(count, () => toDraft(key, { type: 'key.updated', time: later(50) })),
        SOURCE,
      ).events;
    const recover = (store: Store, events: readonly AuditEvent[], drafts: readonly EventDraft[] = []) =>
      store.change(
        { organization: acme },
        () => ({ answer: 'done', widens: false, recovered: events, put: [], events: drafts }),
        ample(),
      );

    onStore('come back behind the head as published, byte for byte, and the chain goes on from them', async (store) => {
      const key = await create(store);
      const events = lost(await store.findOrganization(acme, ample()), 3, key);
      await recover(store, events, [toDraft(key, { type: 'key.updated' })]);
      const all = await expectWhole(store);
      expect(all.slice(1, 4)).toEqual(events);
      expect(all).toHaveLength(5);
      expect(all[4]?.time).toEqual(later(50));
      expect(sequencesOf(await store.outbox.pending(10))).toEqual([1, 5]);
      expect(await store.outbox.backlog(10)).toMatchObject({ depth: 2 });
      await revoke(store, key);
      expect(await expectWhole(store)).toHaveLength(6);
    });

    onStore('may be all that a change is, also in an organization that is new to the store', async (store) => {
      const key = aKey();
      const events = lost(newOrganization(acme), 2, key);
      await recover(store, events);
      expect(await eventsOf(store)).toEqual(events);
      expect(await store.outbox.pending(10)).toEqual([]);
      expect(await store.outbox.backlog(10)).toEqual({ depth: 0 });
      expect(await store.findOrganization(acme, ample())).toMatchObject({
        sequence: 2,
        hash: events[1]?.hash,
        lastEventTime: later(50),
        createTime: later(50),
        updateTime: later(50),
      });
      expect((await create(store)).sequence).toBe(3);
      expect(sequencesOf(await store.outbox.pending(10))).toEqual([3]);
    });

    onStore('are refused as a fault where they do not follow the head, and nothing is written', async (store) => {
      const key = await create(store);
      const before = [await eventsOf(store), await organizationsOf(store)];
      const events = lost(await store.findOrganization(acme, ample()), 3, key);
      for (const broken of [events.slice(1), [...events, ...events], [...events].reverse()]) {
        await expect(recover(store, broken)).rejects.toThrow();
        expect([await eventsOf(store), await organizationsOf(store)]).toEqual(before);
      }
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

    onReplicas(
      'of those who rotate a key at once exactly one wins, and the others learn that it has',
      async (stores) => {
        for (const overlapMs of [undefined, 0, 60_000]) {
          const key = await create(stores[0]);
          const selector = { by: 'key_id', keyId: key.keyId } as const;
          const answers = await Promise.all(
            times(6, (n) =>
              tryRotate(stores[n % 2] ?? stores[0], {
                ask: { selector, ...(overlapMs !== undefined && { overlapMs }) },
              }),
            ),
          );
          const refused = overlapMs === 0 ? 'KEY_REVOKED' : 'KEY_SUPERSEDED';
          expect(answers.filter(isRefusal)).toEqual(times(5, () => ({ refused })));
          const [won] = grantedOf(answers);
          expect((await findByDigest(stores[1], key))?.key).toEqual(won?.previousKey && verifiable(won.previousKey));
          expect(won && (await findByDigest(stores[1], won.key))?.key).toEqual(won && verifiable(won.key));
        }
        expect(await expectWhole(stores[0])).toHaveLength(6);
      },
    );

    onReplicas(
      'of a rotation sent several times at once one is carried out, and all are answered it',
      async (stores) => {
        const key = await create(stores[0]);
        const mutation = aMutation({ request: { method: 'RotateKey', requestId: 'r1', hash: 'h' } });
        const ask = { mutation, selector: { by: 'key_id', keyId: key.keyId } as const };
        const answers = await Promise.all(times(6, (n) => tryRotate(stores[n % 2] ?? stores[0], { ask })));
        const rotated = answers.map(granted);
        expect(rotated.filter(({ replayed }) => !replayed)).toHaveLength(1);
        expect(new Set(rotated.map((one) => `${one.key.keyId} ${one.previousKey.keyId}`)).size).toBe(1);
        expect(await expectWhole(stores[0])).toHaveLength(2);
      },
    );

    onReplicas(
      'a key that is rotated and revoked at once ends revoked, whichever comes first',
      async ([one, other]) => {
        for (const n of times(10, (at) => at)) {
          const key = await create(one);
          const [rotated, ended] = await Promise.all([
            tryRotate(n % 2 ? one : other, { ask: { selector: { by: 'key_id', keyId: key.keyId } } }),
            revoke(other, key),
          ]);
          expect(ended.standing.kind).toBe('revoked');
          expect((await findByDigest(one, key))?.key).toEqual(verifiable(ended));
          if (isRefusal(rotated)) expect(rotated).toEqual({ refused: 'KEY_REVOKED' });
          else expect(ended.supersededBy).toBe(rotated.key.keyId);
        }
        await expectWhole(one);
      },
    );

    onReplicas(
      'a lineage that is revoked by name while it is rotated ends whole, whichever comes first',
      async (stores) => {
        for (const n of times(8, (at) => at)) {
          const key = await create(stores[0], { ask: { name: `key ${n}` } });
          const { key: newer } = await rotate(stores[0], key, { ask: { overlapMs: 60_000 } });
          const [rotated] = await Promise.all([
            tryRotate(stores[n % 2] ?? stores[0], {
              ask: { selector: { by: 'key_id', keyId: newer.keyId }, overlapMs: 60_000 },
            }),
            tryRevoke(stores[1], { selector: { by: 'name', name: `key ${n}` } }),
          ]);
          const ofLineage = (await keysOf(stores[0])).filter(({ lineageId }) => lineageId === key.keyId);
          expect(ofLineage.filter(({ standing }) => standing.kind !== 'revoked')).toEqual([]);
          if (isRefusal(rotated)) expect(rotated).toEqual({ refused: 'KEY_REVOKED' });
        }
        await expectWhole(stores[0]);
      },
    );

    onReplicas('of those who update a key under the same etag exactly one wins', async (stores) => {
      const key = await create(stores[0]);
      const ask = { selector: { by: 'key_id', keyId: key.keyId }, etag: etagOf(key) } as const;
      const answers = await Promise.all(
        times(8, (n) => tryUpdate(stores[n % 2] ?? stores[0], { ask: { ...ask, labels: { writer: String(n) } } })),
      );
      expect(answers.filter(isRefusal)).toEqual(times(7, () => ({ refused: 'ETAG_MISMATCH' })));
      expect(grantedOf(answers)).toEqual(await keysOf(stores[0]));
      expect(await expectWhole(stores[0])).toHaveLength(2);
    });

    onReplicas('updates of different fields at once, without etag, are all kept', async (stores) => {
      const key = await create(stores[0]);
      await Promise.all([
        update(stores[0], key, { labels: { team: 'a' } }),
        update(stores[1], key, { scopes: ['read'] }),
        update(stores[0], key, { disabled: true }),
        update(stores[1], key, { name: 'renamed' }),
        update(stores[0], key, { expireTime: later(500) }),
      ]);
      expect(await keysOf(stores[1])).toEqual([
        {
          ...key,
          labels: { team: 'a' },
          scopes: ['read'],
          standing: { kind: 'disabled' },
          name: 'renamed',
          expireTime: later(500),
          revision: 6,
        },
      ]);
      expect(await expectWhole(stores[0])).toHaveLength(6);
    });

    onReplicas('of those who rename keys to the same unique name exactly one wins', async (stores) => {
      const keys = await Promise.all(
        times(6, (n) => create(stores[n % 2] ?? stores[0], { keyspace: uniqueNames, ask: { name: `key ${n}` } })),
      );
      const answers = await Promise.all(
        keys.map(({ keyId }, n) =>
          tryUpdate(stores[n % 2] ?? stores[0], {
            keyspace: uniqueNames,
            ask: { selector: { by: 'key_id', keyId }, name: 'wanted' },
          }),
        ),
      );
      expect(answers.filter(isRefusal)).toEqual(times(5, () => ({ refused: 'NAME_TAKEN' })));
      expect(await expectWhole(stores[0])).toHaveLength(7);
    });

    onReplicas('while a plan becomes smaller, no key is made beyond the limit that held for it', async (stores) => {
      for (const round of times(3, (n) => n)) {
        const organization = { keyspace: 'shop', organizationId: `acme-${round}` };
        const mutation = aMutation({ organization });
        const setPlan = (store: Store, plan: string) =>
          tryUpdateOrganization(store, { keyspace: twoPlans, ask: { mutation, plan } });
        granted(await setPlan(stores[0], 'gold'));
        const createOne = (n: number) =>
          tryCreate(stores[n % 2] ?? stores[0], { keyspace: twoPlans, ask: { mutation, name: `key ${n}` } });
        const first = times(4, createOne);
        const lowered = setPlan(stores[1], 'free');
        await Promise.all([...first, lowered, ...times(4, (n) => createOne(n + 4))]);

        let limit = 5;
        let count = 0;
        for (const { type } of await expectWhole(stores[0], organization)) {
          if (type === 'key.created') expect((count += 1)).toBeLessThanOrEqual(limit);
          // The first sets the larger plan.
          else if (count > 0 || limit === 3) limit = 3;
        }
        expect(count).toBeGreaterThanOrEqual(3);
        const { keyCount } = await stores[1].findOrganization(organization, ample());
        expect(keyCount).toBe(count);
        expect(await createOne(9)).toMatchObject({ refused: 'KEY_LIMIT_REACHED', limit: 3, plan: 'free' });
      }
    });

    onReplicas(
      'at the limit a key can be rotated, keeps its unique name, and gives its place to none',
      async (stores) => {
        const keyspace = limitedTo(1, { names: uniqueNames.names });
        const key = await create(stores[0], { keyspace, ask: { name: 'only' } });
        const rotation = rotate(stores[0], key, { keyspace, ask: { overlapMs: 60_000 } });
        const racing = times(6, (n) =>
          tryCreate(stores[n % 2] ?? stores[0], { keyspace, ask: { name: n % 3 ? `key ${n}` : 'only' } }),
        );
        const { key: newer, previousKey } = await rotation;
        for (const [n, answer] of (await Promise.all(racing)).entries()) {
          expect(answer).toMatchObject({ refused: n % 3 ? 'KEY_LIMIT_REACHED' : 'NAME_TAKEN' });
        }
        expect(newer).toMatchObject({ name: 'only', nameIsUnique: true });
        expect(await keysOf(stores[1])).toEqual([newer, previousKey]);
        expect(await stores[1].findOrganization(acme, ample())).toMatchObject({ keyCount: 1 });
        const again = await rotate(stores[1], newer, { keyspace, ask: { overlapMs: 60_000 } });
        expect(await tryCreate(stores[0], { keyspace, ask: { name: 'only' } })).toEqual({ refused: 'NAME_TAKEN' });
        expect((await keysOf(stores[0])).map(({ keyId }) => keyId)).toEqual(idsOf([again.key, newer, key]));
        expect((await expectWhole(stores[0])).map(({ type }) => type)).toEqual([
          'key.created',
          'key.rotated',
          'key.rotated',
          'key.revoked',
        ]);
      },
    );

    onReplicas('of two organizations that import the same digest at once exactly one gets the key', async (stores) => {
      for (const round of times(8, (n) => n)) {
        const { digest } = aKey();
        const answers = await Promise.all(
          times(4, (n) => {
            const organization = n % 2 ? umbrella : acme;
            const ask = { mutation: aMutation({ organization }), digest };
            return tryImport(stores[(n + (round % 3)) % 2] ?? stores[0], { ask });
          }),
        );
        const refused = answers.filter(isRefusal);
        expect(refused).toEqual(times(2, () => ({ refused: 'DIGEST_TAKEN', by: 'digest' })));
        const imported = grantedOf(answers);
        expect(imported.map(({ alreadyImported }) => alreadyImported).sort()).toEqual([false, true]);
        expect(new Set(imported.map(({ key }) => key.keyId)).size).toBe(1);
        expect((await findByDigest(stores[0], { keyspace: 'shop', digest }))?.key).toEqual(
          imported[0] && verifiable(imported[0].key),
        );
      }
      let made = 0;
      for (const organization of await organizationsOf(stores[0])) {
        made += (await expectWhole(stores[0], organization)).length;
      }
      expect(made).toBe(8);
    });

    onReplicas('an import that several make at once makes each key once', async (stores) => {
      const asks = times(5, (n) => ({ ...askingToImport(), name: `key ${n}` }));
      const answers = await Promise.all(
        times(20, async (n) => granted(await tryImport(stores[n % 2] ?? stores[0], { ask: asks[n % 5] ?? {} }))),
      );
      expect(answers.filter(({ alreadyImported }) => !alreadyImported)).toHaveLength(5);
      expect(await expectWhole(stores[0])).toHaveLength(5);
      expect(new Set(idsOf(await keysOf(stores[1])))).toEqual(new Set(answers.map(({ key }) => key.keyId)));
    });

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
        expect((await findByDigest(n % 2 ? other : one, key))?.key).toEqual(verifiable(key));
        const ended = await revoke(n % 2 ? one : other, key);
        expect((await findByDigest(n % 2 ? other : one, key))?.key).toEqual(verifiable(ended));
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

    onStore('a name selects its current key, and the old name of a renamed lineage selects none', async (store) => {
      const first = aKey({ standing: revoked() });
      const older = aKey({ name: 'before', lineageId: first.lineageId, rotatedFrom: first.keyId });
      const newer = aKey({ lineageId: first.lineageId, rotatedFrom: older.keyId });
      const stored = await put(store, [
        { ...first, supersededBy: older.keyId },
        { ...older, supersededBy: newer.keyId },
        newer,
        aKey({ name: 'other' }),
      ]);
      const named = { by: 'name', name: 'ci' } as const;
      expect(selectKey(await select(store, named), named)).toEqual(stored[2]);
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

    onStore(
      'a change sees the lineage of a key only where it asks for it, and of that what is unrevoked',
      async (store) => {
        const first = await create(store);
        const second = (await rotate(store, first, { ask: { overlapMs: 0 } })).key;
        const third = (await rotate(store, second)).key;
        await create(store);
        const keyId = third.keyId;
        const selectedBy = (load: Partial<Load>) =>
          store.change({ organization: acme, ...load }, (state) => unchanged(idsOf(state.selected)), ample());
        const selector = { by: 'key_id', keyId } as const;
        expect(await selectedBy({ selector })).toEqual([keyId]);
        expect(granted(await selectedBy({ selector, withLineage: true })).sort()).toEqual([second.keyId, keyId].sort());
        const ended = { by: 'key_id', keyId: first.keyId } as const;
        expect(granted(await selectedBy({ selector: ended, withLineage: true })).sort()).toEqual(
          [first.keyId, second.keyId, keyId].sort(),
        );
        const none = { by: 'key_id', keyId: newKeyId() } as const;
        expect(await selectedBy({ selector: none, withLineage: true })).toEqual([]);
      },
    );

    onStore(
      'the lineage of a name is that of the key which is meant, whatever its others are called',
      async (store) => {
        const selectedBy = async (name: string) =>
          granted(
            await store.change(
              { organization: acme, selector: { by: 'name', name }, withLineage: true },
              (state) => unchanged(idsOf(state.selected).sort()),
              ample(),
            ),
          );
        const first = await create(store, { ask: { name: 'before' } });
        const { key: second } = await rotate(store, first);
        await update(store, second, { name: 'after' });
        expect(await selectedBy('after')).toEqual([first.keyId, second.keyId].sort());
        await revoke(store, second);
        expect(await selectedBy('after')).toEqual([first.keyId, second.keyId].sort());
        const [current] = await put(store, [aKey({ name: 'after' })]);
        expect(await selectedBy('after')).toEqual([current?.keyId]);
      },
    );

    onStore(
      'a change sees the keys whose ids it lists, revoked or not, and none of another organization',
      async (store) => {
        const mine = await put(
          store,
          times(120, (n) => aKey(n % 2 ? { standing: revoked() } : {})),
        );
        const [other] = await put(store, [aKey(umbrella)], umbrella);
        if (!other) throw new Error('nothing was put');
        const keyIds = [...idsOf(mine), other.keyId, newKeyId()];
        const listed = granted(
          await store.change({ organization: acme, keyIds }, (state) => unchanged(state.listed), ample()),
        );
        expect([...listed].sort((a, b) => a.sequence - b.sequence)).toEqual(mine);
        const none = await store.change({ organization: acme }, (state) => unchanged(state.listed), ample());
        expect(none).toEqual([]);
      },
    );

    onStore('a change sees who holds a digest in any of its forms, of whatever organization', async (store) => {
      const [key] = await put(store, [aKey(umbrella)], umbrella);
      await put(store, [aKey({ ...acmeElsewhere, digest: aKey().digest })], acmeElsewhere);
      if (!key) throw new Error('nothing was put');
      const holder = (organization: OrganizationRef, digests: readonly Uint8Array[]) =>
        store.change({ organization, digests }, (state) => unchanged(state.digestHolder), ample());
      const others = times(2, () => aKey().digest.bytes);
      expect(await holder(acme, [...others, key.digest.bytes])).toEqual(key);
      expect(await holder(umbrella, [key.digest.bytes, ...others])).toEqual(key);
      expect(await holder(acme, others)).toBeUndefined();
      expect(await holder(acme, [])).toBeUndefined();
      expect(await holder(acmeElsewhere, [key.digest.bytes])).toBeUndefined();
    });

    onStore('an import finds what is stored under another form of its digest', async (store) => {
      const { key } = granted(await tryImport(store));
      const newer = aKey().digest;
      const again = await tryImport(store, { ask: { digest: newer }, digests: [key.digest.bytes, newer.bytes] });
      expect(again).toEqual({ key, alreadyImported: true });
      expect(await expectWhole(store)).toHaveLength(1);
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

    onStore("a key's events include the rotation that took its place, as they do its successor's", async (store) => {
      const first = await create(store);
      const { key: second } = await rotate(store, first, { ask: { overlapMs: 60_000 } });
      const { key: third } = await rotate(store, second, { ask: { overlapMs: 60_000 } });
      await create(store);
      await revoke(store, second);
      const { events, head } = await read(store);
      expect(events.map(({ type }) => type)).toEqual([
        'key.created',
        'key.rotated',
        'key.rotated',
        'key.revoked',
        'key.created',
        'key.revoked',
      ]);
      expect(events.map(({ previousKeyId }) => previousKeyId)).toEqual([
        undefined,
        first.keyId,
        second.keyId,
        undefined,
        undefined,
        undefined,
      ]);
      const filters = [
        { fields: { keyId: first.keyId }, sequences: [1, 2, 4] },
        { fields: { keyId: second.keyId }, sequences: [2, 3, 6] },
        { fields: { keyId: third.keyId }, sequences: [3] },
        { fields: { keyId: second.keyId, limit: 2 }, sequences: [2, 3] },
        { fields: { keyId: second.keyId, afterSequence: 2 }, sequences: [3, 6] },
        { fields: { keyId: second.keyId, types: ['key.rotated' as const] }, sequences: [2, 3] },
        { fields: { keyId: first.keyId, types: ['key.revoked' as const] }, sequences: [4] },
      ];
      for (const { fields, sequences } of filters) {
        expect(await read(store, fields)).toEqual({ events: sequences.map((one) => events[one - 1]), head });
      }
      expect(await store.outbox.pending(10)).toEqual(events);
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

    onReplicas('how far a sink has come only grows, for each of its lanes and for each sink', async ([one, other]) => {
      const positions = async (store: Store, sink: string) => new Map(await store.outbox.positions(sink));
      const mark = async (store: Store, sink: string, lane: number, end: number) => {
        const key = await create(store);
        const events = (await eventsOf(store)).filter(({ keyId }) => keyId === key.keyId);
        await store.outbox.markPublished(events, { sink, lane, end });
      };
      expect(await positions(one, 'file')).toEqual(new Map());
      await mark(one, 'kafka/a', 0, 5);
      await mark(other, 'kafka/a', 1, 2 ** 45);
      await mark(one, 'kafka/b', 0, 7);
      await mark(other, 'kafka/a', 0, 4);
      await mark(one, 'kafka/a', 1, 0);
      await mark(one, 'kafka/a', 2, 0);
      const expected = new Map([[0, 5], [1, 2 ** 45], [2, 0]]); // prettier-ignore
      for (const store of [one, other]) {
        expect(await positions(store, 'kafka/a')).toEqual(expected);
        expect(await positions(store, 'kafka/b')).toEqual(new Map([[0, 7]]));
        expect(await positions(store, 'kafka')).toEqual(new Map());
      }
      await Promise.all(times(20, (n) => mark(n % 2 ? one : other, 'file', 0, 100 + ((n * 7) % 20))));
      expect(await positions(one, 'file')).toEqual(new Map([[0, 119]]));
      expect(await one.outbox.pending(100)).toEqual([]);
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
      await expect.poll(() => listener).toHaveBeenCalledTimes(1);
      expect(await store.outbox.pending(10)).toHaveLength(1);
      await store.change({ organization: acme }, () => unchanged('nothing'), ample());
      await tryCreate(store, { keyspace: limitedTo(0) });
      await revoke(store, key);
      await expect.poll(() => listener).toHaveBeenCalledTimes(2);
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
        const shop = keyspaceFactsOf(aKeyspace());
        const mart = { name: 'mart', kind: 'pair' as const, prefix: '', bodyLength: 32, uniqueNames: true };
        expect(await store.keyspaceFacts(ample())).toEqual([]);
        await store.rememberKeyspaces([shop, mart], ample());
        const facts = async () => (await store.keyspaceFacts(ample())).sort((a, b) => (a.name < b.name ? -1 : 1));
        expect(await facts()).toEqual([
          { ...mart, hasUnrevokedKeys: false, plansInUse: [] },
          { ...shop, hasUnrevokedKeys: false, plansInUse: [] },
        ]);
        const key = await create(store);
        await put(store, [aKey({ ...acmeElsewhere, standing: revoked() })], acmeElsewhere);
        expect((await facts()).map((one) => one.hasUnrevokedKeys)).toEqual([false, true]);
        // A replica with an older file must not make the others' keyspaces forgotten.
        await store.rememberKeyspaces([{ ...shop, prefix: 'new_', uniqueNames: true }], ample());
        expect(await facts()).toEqual([
          { ...mart, hasUnrevokedKeys: false, plansInUse: [] },
          { ...shop, prefix: 'new_', uniqueNames: true, hasUnrevokedKeys: true, plansInUse: [] },
        ]);
        await revoke(store, key);
        expect((await facts()).map((one) => one.hasUnrevokedKeys)).toEqual([false, false]);
      },
    );

    onStore('disabled, expired and superseded keys rely on their keyspace too', async (store) => {
      await store.rememberKeyspaces(
        ['a', 'b', 'c', 'd'].map((one) => ({ ...keyspaceFactsOf(aKeyspace()), name: one })),
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

  describe(`${name}: plans`, () => {
    onStore('those that organizations were given are told of, each once, for as long as one has it', async (store) => {
      await store.rememberKeyspaces(
        ['shop', 'mart', 'none'].map((one) => ({ ...keyspaceFactsOf(aKeyspace()), name: one })),
        ample(),
      );
      const set = (organization: OrganizationRef, plan: string) =>
        tryUpdateOrganization(store, { keyspace: twoPlans, ask: { mutation: aMutation({ organization }), plan } });
      const plans = async () =>
        Object.fromEntries((await store.keyspaceFacts(ample())).map((one) => [one.name, one.plansInUse]));
      await create(store);
      expect(await plans()).toEqual({ shop: [], mart: [], none: [] });
      for (const organizationId of ['a', 'b', 'c']) await set({ keyspace: 'shop', organizationId }, 'gold');
      await set(acme, 'free');
      await set(acmeElsewhere, 'gold');
      expect(await plans()).toEqual({ shop: ['free', 'gold'], mart: ['gold'], none: [] });
      await set(acme, 'gold');
      await set(acmeElsewhere, '');
      expect(await plans()).toEqual({ shop: ['gold'], mart: [], none: [] });
    });
  });

  describe(`${name}: life`, () => {
    test(
      'a store belongs to the installation that opened it first, and refuses another',
      { timeout: 60_000 },
      async () => {
        await using place = await newPlace();
        await (await openStoreAt(place.at))[Symbol.asyncDispose]();
        const opening = async () => openStoreAt(place.at, 'urn:keyreeve:other');
        await expect(opening()).rejects.toThrow(
          /come from urn:keyreeve:test,.*urn:keyreeve:other.*KEYREEVE_INSTALLATION/,
        );
        await (await openStoreAt(place.at))[Symbol.asyncDispose]();
      },
    );

    test('what was stored is there when the store is opened again', { timeout: 60_000 }, async () => {
      await using place = await newPlace();
      const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
      const before = await (async () => {
        await using store = await place.open();
        const key = await create(store, { ask: { mutation } });
        await revoke(store, await create(store));
        await store.rememberKeyspaces([keyspaceFactsOf(aKeyspace())], ample());
        await store.outbox.markPublished((await store.outbox.pending(10)).slice(0, 1), { ...reached, end: 77 });
        granted(await tryUpdateOrganization(store, { keyspace: twoPlans, ask: { plan: 'gold', suspended: true } }));
        return {
          key,
          keys: await keysOf(store),
          events: await eventsOf(store),
          pending: await store.outbox.pending(10),
          organization: await store.findOrganization(acme, ample()),
        };
      })();
      await using store = await place.open();
      expect(await keysOf(store)).toEqual(before.keys);
      expect(await expectWhole(store)).toEqual(before.events);
      expect(await store.outbox.pending(10)).toEqual(before.pending);
      expect(await store.outbox.positions('file')).toEqual(new Map([[0, 77]]));
      expect(await store.findOrganization(acme, ample())).toEqual(before.organization);
      expect((await findByDigest(store, before.key))?.organization).toEqual(
        verifiableOrganization(before.organization),
      );
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
        const acknowledged: { did: string; keyIds: string[] }[] = [];
        const hear = (outcome: Outcome | undefined) => {
          if (!outcome || !('keyIds' in outcome)) throw new Error(`a step failed: ${outcome?.failed ?? 'it ended'}`);
          acknowledged.push(outcome);
        };
        for (const killAfter of fc.sample(fc.integer({ min: 1, max: 80 }), 4)) {
          await using child = startStoreProcess(place.at);
          expect(await child.hear()).toEqual({ did: 'open', keyIds: [] });
          child.tell('changeForever');
          for (let heard = 0; heard < killAfter; heard += 1) hear(await child.hear());
          // At any moment, and not always just after an answer.
          await sleep(Math.random() * 5);
          await child.kill();
          // What it had said and nobody had read yet was acknowledged all the same.
          for (let rest = await child.hear(); rest; rest = await child.hear()) hear(rest);

          await using store = await place.open();
          const events = await expectWhole(store);
          const stored = new Map((await keysOf(store)).map((key) => [key.keyId, key]));
          for (const { did, keyIds } of acknowledged) {
            const [key, previous] = keyIds.map((keyId) => stored.get(keyId));
            expect(key && (await isDone(store, did, key, previous)) ? did : `${did}: lost`).toBe(did);
          }
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

/** Whether what a store process said that it did shows in its keys. */
async function isDone(store: Store, did: string, key: Key, previous: Key | undefined): Promise<boolean> {
  switch (did) {
    case 'create':
    case 'import':
      return true;
    case 'rotate':
      return previous?.supersededBy === key.keyId && key.rotatedFrom === previous.keyId;
    case 'update':
      return key.standing.kind === 'disabled';
    case 'revoke':
      return key.standing.kind === 'revoked';
    case 'recordUses':
      return key.lastUseTime?.getTime() === noon.getTime();
    case 'takeBudget': {
      const { want, ...budget } = CHILDS_BUDGET;
      const { left } = await store.readBudget({ lineageId: key.lineageId, ...budget }, ample());
      return left === budget.limit - want;
    }
    default:
      throw new Error(`nobody knows what ${did} comes to`);
  }
}
