/** What the parts keep is what a scrape shows, under the names and labels that the page lists. */
import { status } from '@grpc/grpc-js';
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/keys/clock.js';
import { CallMeters } from '../../src/metrics/calls.js';
import { CALL_BOUNDS, Latencies } from '../../src/metrics/latencies.js';
import { openRegistry, type Watched } from '../../src/metrics/registry.js';
import { StoreMeters } from '../../src/metrics/store.js';
import { StoreFault } from '../../src/store/faults.js';
import { metered, STORE_OPERATIONS } from '../../src/store/metered.js';
import type { Store } from '../../src/store/port.js';
import { readMetrics, type Scraped } from '../support/metrics.js';
import { ample } from '../support/store-calls.js';

const now = new Date('2026-01-02T12:00:00.000Z');
const noDecisions = {
  ...{ VALID: 0, MALFORMED: 0, NOT_FOUND: 0, WRONG_ORGANIZATION: 0, REVOKED: 0, DISABLED: 0, EXPIRED: 0 },
  ...{ ORGANIZATION_SUSPENDED: 0, INSUFFICIENT_SCOPE: 0, RATE_LIMITED: 0 },
};

/** A service that has done something of everything, each a different number of times. */
function watched(fields: Partial<Watched> = {}): Watched {
  const calls = new CallMeters();
  const verifyKey = calls.observe('VerifyKey');
  for (const ms of [0.004, 0.007, 20_000]) verifyKey('gateway', status.OK, ms);
  verifyKey(undefined, status.UNAUTHENTICATED, 1);
  const store = new StoreMeters();
  store.ended('change', 3);
  store.ended('change', 3, 'contention');
  store.enforced(30, true);
  store.enforced(4000, false);
  return {
    calls,
    store,
    verifier: {
      figures: () => ({
        decisions: new Map([
          ['shop', { ...noDecisions, VALID: 11, REVOKED: 12 }],
          ['', { ...noDecisions, MALFORMED: 13 }],
        ]),
        lookUps: { hit: 14, absent: 15, unknown: 16 },
        cache: { keys: 17, reads: 18, joined: 19, filled: 20, evicted: 21 },
        misses: { waiting: 22, turnedDown: 23 },
        lease: { holds: true, remainingMs: 2400, replicas: 25 },
        undecided: 24,
        unleased: { read: 26, failed: 27 },
        budgets: { blocks: 28, admitted: 29, refused: 30 },
        lastUses: { pending: 31, written: 32, lost: 33 },
      }),
    },
    relay: {
      backlog: { depth: 34, oldestTime: new Date(now.getTime() - 35_000) },
      standing: { leads: true, published: 36, faults: { unavailable: 37, refused: 38 } },
    },
    backlogMax: 39,
    isReady: () => true,
    certificate: () => ({ from: new Date(40_000), until: new Date(41_000) }),
    keyspaces: ['shop'],
    version: '1.2.3',
    clock: { ...systemClock, now: () => now },
    ...fields,
  };
}

const show = async (fields: Partial<Watched> = {}) => readMetrics(await openRegistry(watched(fields)).metrics());
let shown: Scraped;
beforeAll(async () => {
  shown = await show();
});

test.each<[name: string, labels: Record<string, string>, value: number]>([
  ['keyreeve_calls_total', { method: 'VerifyKey', code: 'OK', caller: 'gateway' }, 3],
  ['keyreeve_calls_total', { method: 'VerifyKey', code: 'UNAUTHENTICATED', caller: '(unknown)' }, 1],
  ['keyreeve_call_duration_seconds_bucket', { method: 'VerifyKey', le: '0.000005' }, 1],
  ['keyreeve_call_duration_seconds_bucket', { method: 'VerifyKey', le: '0.00001' }, 2],
  ['keyreeve_call_duration_seconds_bucket', { method: 'VerifyKey', le: '10' }, 3],
  ['keyreeve_call_duration_seconds_bucket', { method: 'VerifyKey', le: '+Inf' }, 4],
  ['keyreeve_call_duration_seconds_count', { method: 'VerifyKey' }, 4],
  ['keyreeve_decisions_total', { keyspace: 'shop', decision: 'VALID' }, 11],
  ['keyreeve_decisions_total', { keyspace: 'shop', decision: 'REVOKED' }, 12],
  ['keyreeve_decisions_total', { keyspace: '(none)', decision: 'MALFORMED' }, 13],
  ['keyreeve_cache_lookups_total', { result: 'hit' }, 14],
  ['keyreeve_cache_lookups_total', { result: 'absent' }, 15],
  ['keyreeve_cache_lookups_total', { result: 'miss' }, 16],
  ['keyreeve_cache_keys', {}, 17],
  ['keyreeve_cache_loads_total', { how: 'read' }, 18],
  ['keyreeve_cache_loads_total', { how: 'joined' }, 19],
  ['keyreeve_cache_filled_total', {}, 20],
  ['keyreeve_cache_evicted_total', {}, 21],
  ['keyreeve_verifications_waiting', {}, 22],
  ['keyreeve_verifications_overloaded_total', {}, 23],
  ['keyreeve_verifications_undecided_total', {}, 24],
  ['keyreeve_lease_held', {}, 1],
  ['keyreeve_lease_remaining_seconds', {}, 2.4],
  ['keyreeve_replicas', {}, 25],
  ['keyreeve_unleased_reads_total', { result: 'answered' }, 26],
  ['keyreeve_unleased_reads_total', { result: 'failed' }, 27],
  ['keyreeve_budget_blocks_total', {}, 28],
  ['keyreeve_budget_requests_total', { result: 'admitted' }, 29],
  ['keyreeve_budget_requests_total', { result: 'refused' }, 30],
  ['keyreeve_last_uses_pending', {}, 31],
  ['keyreeve_last_uses_written_total', {}, 32],
  ['keyreeve_last_uses_lost_total', {}, 33],
  ['keyreeve_enforcement_duration_seconds_bucket', { le: '0.025' }, 0],
  ['keyreeve_enforcement_duration_seconds_bucket', { le: '0.05' }, 1],
  ['keyreeve_enforcement_duration_seconds_count', {}, 1],
  ['keyreeve_enforcements_incomplete_total', {}, 1],
  ['keyreeve_outbox_events', {}, 34],
  ['keyreeve_outbox_oldest_event_age_seconds', {}, 35],
  ['keyreeve_audit_published_events_total', {}, 36],
  ['keyreeve_audit_sink_faults_total', { kind: 'unavailable' }, 37],
  ['keyreeve_audit_sink_faults_total', { kind: 'refused' }, 38],
  ['keyreeve_outbox_events_max', {}, 39],
  ['keyreeve_relay_leader', {}, 1],
  ['keyreeve_store_duration_seconds_count', { operation: 'change' }, 2],
  ['keyreeve_store_duration_seconds_bucket', { operation: 'change', le: '0.0025' }, 0],
  ['keyreeve_store_duration_seconds_bucket', { operation: 'change', le: '0.005' }, 2],
  ['keyreeve_store_duration_seconds_sum', { operation: 'change' }, 0.006],
  ['keyreeve_store_faults_total', { operation: 'change', kind: 'contention' }, 1],
  ['keyreeve_ready', {}, 1],
  ['keyreeve_certificate_begin_timestamp_seconds', {}, 40],
  ['keyreeve_certificate_end_timestamp_seconds', {}, 41],
  ['keyreeve_build_info', { version: '1.2.3', node_version: process.version }, 1],
])('%s %o shows %d', (name, labels, value) => {
  const found = shown.samples.filter(
    (sample) => sample.name === name && Object.entries(labels).every(([label, of]) => sample.labels[label] === of),
  );
  expect(found).toHaveLength(1);
  expect(found[0]?.value).toBeCloseTo(value, 9);
});

test('what there is not is not shown as 0: no certificate without TLS, no lease to run out in an embedded store', async () => {
  const { figures } = watched().verifier;
  const verifier = { figures: () => ({ ...figures(), lease: { holds: true } }) };
  const { types } = await show({ certificate: () => undefined, verifier });
  expect([...types.keys()]).toContain('keyreeve_lease_held');
  expect([...types.keys()].filter((name) => /certificate|lease_remaining|replicas/.test(name))).toEqual([]);
});

test('a scrape shows the figures of its moment, and adds up none', async () => {
  let depth = 1;
  const registry = openRegistry(watched({ relay: { ...watched().relay, backlog: { depth: 0 } } }));
  const changing = openRegistry(
    watched({
      relay: {
        ...watched().relay,
        get backlog() {
          return { depth };
        },
      },
    }),
  );
  expect(await registry.metrics()).toContain('\nkeyreeve_outbox_oldest_event_age_seconds 0\n');
  for (depth of [1, 5, 2]) expect(await changing.metrics()).toContain(`\nkeyreeve_outbox_events ${depth}\n`);
  const [once, again] = [await registry.metrics(), await registry.metrics()].map(readMetrics);
  const own = (scraped: Scraped | undefined) => scraped?.samples.filter(({ name }) => name.startsWith('keyreeve_'));
  expect(own(again)).toEqual(own(once));
});

describe('the page', () => {
  const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `(keyreeve_\w+)` +\| (\w+) +\| (.*?) *\| (.*?) *\|$/gm)].map(
    ([, name, type, labels = '', meaning]) => ({
      name,
      type,
      labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label),
      meaning,
    }),
  );

  test('lists every metric, its type, its labels and what it means, and no other', () => {
    const helps = new Map([...shown.text.matchAll(/^# HELP (\S+) (.*)$/gm)].map(([, name, help]) => [name, help]));
    const own = [...shown.types].filter(([name]) => name.startsWith('keyreeve_'));
    const labelsOf = (name: string) => {
      const sample = shown.samples.find((one) => [name, `${name}_bucket`].includes(one.name));
      return Object.keys(sample?.labels ?? {}).filter((label) => label !== 'le');
    };
    expect(rows.map((row) => row.name).sort()).toEqual(own.map(([name]) => name).sort());
    for (const [name, type] of own) {
      expect(rows).toContainEqual({ name, type, labels: labelsOf(name), meaning: helps.get(name) });
    }
  });
});

describe('latencies', () => {
  test('are counted up to the bound that they do not exceed', () => {
    const latencies = new Latencies([0.001, 0.01]);
    for (const ms of [0, 1, 1.5, 10, 10.5, 1e9]) latencies.add(ms);
    expect(latencies.cumulated).toEqual([2, 4, 6]);
    expect(latencies.sum).toBeCloseTo(1e6 + 0.023, 6);
  });

  test('tell apart a few microseconds, and reach what a call may take', () => {
    expect(CALL_BOUNDS[0]).toBe(5e-6);
    expect(CALL_BOUNDS.at(-1)).toBe(10);
    expect(CALL_BOUNDS).toEqual([...CALL_BOUNDS].sort((a, b) => a - b));
  });
});

describe('a store whose calls are observed', () => {
  const answering = { change: () => Promise.resolve('done'), isShared: true } as unknown as Store;

  test('answers what it answers, and fails as it fails', async () => {
    const meters = new StoreMeters();
    const fault = new StoreFault('unavailable', 'away');
    const failing = {
      ...answering,
      ping: () => Promise.reject(fault),
      findByDigest: () => Promise.reject(new Error()),
    };
    const store = metered(failing, meters, systemClock);
    const rule = () => ({ refused: 'KEY_NOT_FOUND' }) as const;
    expect(await store.change({ organization: { keyspace: 'shop', organizationId: 'acme' } }, rule, ample())).toBe(
      'done',
    );
    await expect(store.ping(ample())).rejects.toBe(fault);
    await expect(store.findByDigest('shop', Buffer.alloc(32), ample())).rejects.toThrow();
    expect([...meters.durations.keys()]).toEqual(['change', 'ping', 'findByDigest']);
    expect(meters.troubles).toEqual(
      new Map([
        ['ping', new Map([['unavailable', 1]])],
        ['findByDigest', new Map([['other', 1]])],
      ]),
    );
  });

  const following = {
    holds: () => true,
    readNow: () => undefined,
    read: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };

  test('counts each call under its own name, a follower’s read among them', async () => {
    const meters = new StoreMeters();
    const names = STORE_OPERATIONS.filter((name) => name !== 'read');
    const answers = names.map((name) => [name, () => Promise.resolve({ complete: true })]);
    const store = metered({ ...(Object.fromEntries(answers) as Store), follow: () => following }, meters, systemClock);
    for (const name of names) {
      await (store[name] as () => Promise<unknown>)();
      expect([...meters.durations.keys()].at(-1)).toBe(name);
    }
    await store.follow({} as Parameters<Store['follow']>[0]).read('shop', Buffer.alloc(32));
    expect([...meters.durations.keys()]).toEqual([...names, 'read']);
  });

  test('is asked as directly as before for what a verification waits for', () => {
    const store = metered({ ...answering, follow: () => following }, new StoreMeters(), systemClock);
    const followed = store.follow({} as Parameters<Store['follow']>[0]);
    expect(followed).toMatchObject({ holds: following.holds, readNow: following.readNow });
  });
});
