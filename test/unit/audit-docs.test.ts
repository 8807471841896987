/** `docs/audit.md` and the schema beside it say what is so, and their code does what they say. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { once } from 'node:events';
import { Ajv2020 } from 'ajv/dist/2020.js';
import ajvFormats from 'ajv-formats';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { AUDIT_FILE, openFileSink } from '../../src/audit/file-sink.js';
import { parseEvent, toLostEvent } from '../../src/audit/read-event.js';
import { FAULT_KINDS } from '../../src/audit/verify-chain.js';
import { type CloudEvent, EVENT_TYPE_PREFIX, hashOf } from '../../src/keys/chain.js';
import { toCommit } from '../../src/keys/change.js';
import { createKey } from '../../src/keys/create-key.js';
import type { Expiration } from '../../src/keys/expiration.js';
import { type AuditEvent, EVENT_TYPES, type Mutation } from '../../src/keys/event.js';
import { newEventId } from '../../src/keys/ids.js';
import { type Key, REVOCATION_REASONS } from '../../src/keys/key.js';
import { newOrganization, type OrganizationRef } from '../../src/keys/organization.js';
import { keysNamed, reconcile } from '../../src/keys/reconcile.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { revokeKey } from '../../src/keys/revoke-key.js';
import { edit, makeChain, rewrite, silentLog, TRACEPARENT } from '../support/audit.js';
import { acme, aKeyspace, aMutation, drawToCreate, drawToRevoke, noon, SOURCE } from '../support/domain.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';
import { Model } from '../support/model.js';
import { type Step, step, strictKeyspace, toRequest } from '../support/requests.js';

const docs = new URL('../../docs/', import.meta.url);
const page = await readFile(new URL('audit.md', docs), 'utf8');
const schema = JSON.parse(await readFile(new URL('audit-event.schema.json', docs), 'utf8')) as Schema;

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly $defs?: Readonly<Record<string, Schema>>;
}

const ajv = new Ajv2020({ strict: true, strictRequired: false, allErrors: true });
ajvFormats.default(ajv);
const isValid = ajv.compile(schema);

let folder: GuardedFolder;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-audit-docs-'));
});
afterAll(() => folder[Symbol.asyncDispose]());

describe('the schema', () => {
  test('accepts every event that the rules make', () => {
    fc.assert(
      fc.property(changes, (change) => {
        for (const event of makeEvents(change)) {
          isValid(JSON.parse(event.cloudEvent));
          expect(isValid.errors).toBeNull();
        }
      }),
      { numRuns: 200 },
    );
  });

  test('accepts every event of every type, under any sequence of requests and after a restored backup', () => {
    const met = new Set<string>();
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 40 }), (steps) => {
        for (const { type, cloudEvent } of eventsOf(steps)) {
          met.add(type);
          isValid(JSON.parse(cloudEvent));
          expect(isValid.errors).toBeNull();
        }
      }),
    );
    expect([...met].sort()).toEqual([...EVENT_TYPES].sort());
  });

  test('turns down an event that tells what its type does not', () => {
    const [created, revoked] = makeChain(2).map(({ cloudEvent }) => JSON.parse(cloudEvent) as CloudEvent);
    const wrong: Partial<CloudEvent['data']>[] = [
      { after: { plan: 'free' } },
      { before: { state: 'ACTIVE' } },
      {
        previous_key: {
          key_id: created?.data.key?.key_id ?? '',
          name: '',
          type: '',
          display: '',
          before: {},
          after: {},
        },
      },
    ];
    for (const data of wrong) expect(isValid({ ...created, data: { ...created?.data, ...data } })).toBe(false);
    expect(isValid({ ...revoked, data: { ...revoked?.data, after: { state: 'ACTIVE' } } })).toBe(false);
    expect(isValid({ ...created, type: 'keyreeve.organization.updated' })).toBe(false);
    expect(isValid({ ...created, type: 'keyreeve.key.rotated' })).toBe(false);
    expect(isValid({ ...created, subject: 'shop/acme' })).toBe(false);
  });

  test('turns down a field that it does not name, wherever it is added', () => {
    const [created, revoked] = makeChain(2).map(({ cloudEvent }) => cloudEvent);
    const added = (text: string | undefined, at: (event: CloudEvent) => object | undefined) => {
      const event = JSON.parse(text ?? '') as CloudEvent;
      Object.assign(at(event) ?? {}, { secret: 'x' });
      return isValid(event);
    };
    const places: ((event: CloudEvent) => object | undefined)[] = [
      (event) => event,
      ({ data }) => data,
      ({ data }) => data.actor,
      ({ data }) => data.key,
      ({ data }) => data.after,
    ];
    for (const place of places) expect([added(created, place), added(revoked, place)]).toEqual([false, false]);
    expect(added(revoked, ({ data }) => data.before)).toBe(false);
  });

  test('takes a traceparent as the rules let it in, and no other', () => {
    const [created, revoked] = makeChain(2).map(({ cloudEvent }) => JSON.parse(cloudEvent) as CloudEvent);
    expect(created).not.toHaveProperty('traceparent');
    expect(revoked?.traceparent).toBe(TRACEPARENT);
    for (const wrong of ['', TRACEPARENT.toUpperCase(), TRACEPARENT.replace(/^00/, '01')]) {
      expect(isValid({ ...revoked, traceparent: wrong })).toBe(false);
    }
  });

  test.each(['id', 'source', 'type', 'subject', 'time', 'data'])('turns down an event without %s', (name) => {
    const { [name]: _, ...rest } = JSON.parse(makeChain(1)[0]?.cloudEvent ?? '') as Record<string, unknown>;
    expect(isValid(rest)).toBe(false);
  });

  test('has the fields that the page explains, and no other', () => {
    const explained = rowsOf('field');
    const facts = Object.keys(schema.$defs?.facts?.properties ?? {});
    expect(explained).toEqual([...pathsOf(schema), ...facts.map((name) => `….${name}`)]);
  });
});

describe('the test vectors', () => {
  const lines = blocksOf('jsonl').flatMap((block) => block.trimEnd().split('\n'));
  const events = lines.map((line) => JSON.parse(line) as CloudEvent);

  test('are two chained events with the hashes of their content', () => {
    expect(events.map((event) => event.data.hash)).toEqual(events.map(hashOf));
    expect(events.map((event) => event.data.previous_hash)).toEqual(['0'.repeat(64), events[0]?.data.hash]);
    for (const event of events) expect(isValid(event)).toBe(true);
  });

  test('are what the rules make of such changes, byte for byte', () => {
    const made = makeEvents({
      ...{ organization: { keyspace: 'metlo', organizationId: 'acme' }, source: 'urn:keyreeve:example' },
      ...{ actorId: 'ada@acme.example', requestId: '5b0e7a0c', type: 'GENERIC' },
      ...{ name: 'CI pipeline', scopes: ['deploy'], labels: { office: 'Zürich' }, expiration: { kind: 'default' } },
      ...{ reason: 'COMPROMISED', reasonDetail: 'seen in a public repository', display: 'metlo_****abcd' },
      ...{ keyId: 'key_01kdzg2x80e5trx4y6sxtmkpd4', eventIds: events.map(({ id }) => id) },
      times: events.map(({ time }) => new Date(time)),
    });
    expect(made.map(({ cloudEvent }) => cloudEvent)).toEqual(lines);
  });

  test('give their hashes by the short cut too, as does every event', () => {
    const all = [...lines, ...makeChain(20).map(({ cloudEvent }) => cloudEvent)];
    for (const line of all) {
      const { hash } = (JSON.parse(line) as CloudEvent).data;
      const rest = line.replace(`"hash":"${hash}",`, '');
      expect(createHash('sha256').update(rest).digest('hex')).toBe(hash);
    }
  });

  test('end where the page has its anchor', () => {
    expect(page).toContain(`--anchor metlo/acme:2:${events[1]?.data.hash}`);
  });
});

describe('the checker in Python', () => {
  const chain = makeChain(6);
  const path = (name: string) => join(folder.path, name);
  beforeAll(() => writeFile(path('check.py'), blocksOf('python').join('')));

  test('finds nothing wrong with an audit file, repeats included, and tells where the chains end', async () => {
    const other = makeChain(3, { ...acme, organizationId: 'other' });
    {
      await using sink = await openFileSink(path(AUDIT_FILE), silentLog);
      for (const batch of [chain.slice(0, 4), other, chain.slice(2)]) await sink.publish(0, batch, 1000);
    }
    expect(await check(await readFile(path(AUDIT_FILE)))).toEqual({
      code: 0,
      stdout: `shop/acme ends with event 6, hash ${chain[5]?.hash}\nshop/other ends with event 3, hash ${other[2]?.hash}\n`,
    });
  });

  test('takes the test vectors', async () => {
    expect((await check(blocksOf('jsonl').join(''))).code).toBe(0);
  });

  test.each<[string, (events: AuditEvent[]) => string[], string]>([
    [
      'an altered event',
      (events) => textsOf(at(events, 3, (event) => edit(event, '"ada"', '"eve"'))),
      'line 3: shop/acme event 3: altered',
    ],
    [
      'text written anew',
      (events) => textsOf(at(events, 3, (event) => edit(event, '"data":', '"data": '))),
      'line 3: shop/acme event 3: altered',
    ],
    [
      'an altered event with a hash that fits',
      (events) => textsOf(at(events, 3, (event) => rewrite(event, ({ data }) => void (data.actor.id = 'eve')))),
      'line 4: shop/acme event 4: forked before it',
    ],
    ['a dropped event', (events) => textsOf(events.toSpliced(2, 1)), 'line 3: shop/acme event 4: gap after event 2'],
    ['a dropped start', (events) => textsOf(events.slice(2)), 'line 1: shop/acme event 3: gap after event 0'],
    [
      'swapped events',
      ([a, b, c, ...rest]) => textsOf([a, c, b, ...rest].filter((event) => event !== undefined)),
      'line 2: shop/acme event 3: gap after event 1',
    ],
    [
      'a forked event',
      (events) =>
        textsOf([
          ...events.slice(0, 3),
          ...at(events, 3, (event) => rewrite(event, ({ data }) => void (data.caller = 'eve'))).slice(2),
        ]),
      'line 4: shop/acme event 3: forked',
    ],
    ['a line that is no event', (events) => ['[]', ...textsOf(events)], 'line 1: ? event 0: no event'],
    ['half a line', (events) => [...textsOf(events), '{"data":'], 'line 7: ? event 0: no event'],
  ])('finds %s', async (_, damage, told) => {
    const { code, stdout } = await check(
      damage([...chain])
        .map((line) => `${line}\n`)
        .join(''),
    );
    expect(stdout.split('\n')[0]).toBe(told);
    expect(code).toBe(1);
  });

  async function check(input: string | Buffer): Promise<{ code: unknown; stdout: string }> {
    const child = execFile('python3', [path('check.py')]);
    if (!child.stdin || !child.stdout) throw new Error('the checker has no input or output');
    child.stdin.end(input);
    const [stdout] = await Promise.all([text(child.stdout), once(child, 'close')]);
    return { code: child.exitCode, stdout };
  }
});

test('the page explains every type of event, and no other', () => {
  expect(rowsOf('type')).toEqual(expect.arrayContaining(EVENT_TYPES.map((type) => `${EVENT_TYPE_PREFIX}${type}`)));
  expect(rowsOf('type')).toHaveLength(EVENT_TYPES.length);
});

test('the page explains every kind of fault, and no other', () => {
  expect(rowsOf('fault').sort()).toEqual([...FAULT_KINDS].sort());
});

/** What the rules make of the steps, and then of a copy from half-way that is reconciled with it. */
function eventsOf(steps: readonly Step[]): AuditEvent[] {
  const [model, copy] = [new Model(), new Model()];
  for (const [at, one] of steps.entries()) {
    const { load, rule } = toRequest(one, model);
    model.change(load, rule);
    if (at < steps.length / 2) {
      copy.organization = model.organization;
      for (const [keyId, key] of model.keys) copy.keys.set(keyId, key);
    }
  }
  const lost = model.events.slice(copy.organization.sequence).flatMap(({ cloudEvent }) => {
    const event = parseEvent(cloudEvent);
    return (event && toLostEvent(event, cloudEvent)) ?? [];
  });
  const ask = { organization: acme, lost, keyspace: strictKeyspace };
  const eventIds = Array.from({ length: lost.length * 2 + 1 }, newEventId);
  copy.change({ keyIds: keysNamed(lost) }, (state) => reconcile(state, ask, { now: noon, eventIds }));
  return [...model.events, ...copy.events];
}

interface Changed {
  readonly organization?: OrganizationRef;
  readonly source?: string;
  readonly actorId: string;
  readonly requestId?: string | undefined;
  readonly traceparent?: string | undefined;
  readonly name: string;
  readonly type: string;
  readonly scopes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly expiration: Expiration;
  readonly reason: (typeof REVOCATION_REASONS)[number];
  readonly reasonDetail: string;
  readonly display?: string;
  readonly keyId?: string;
  readonly eventIds?: readonly string[];
  readonly times?: readonly Date[];
}

const words = (maxLength: number) => fc.string({ maxLength, unit: 'grapheme' });

/** What the edge lets through, at random. */
const changes: fc.Arbitrary<Changed> = fc.record({
  actorId: words(200).filter((id) => id !== ''),
  requestId: fc.option(fc.stringMatching(/^[!-~]{1,128}$/), { nil: undefined }),
  traceparent: fc.option(fc.constantFrom(TRACEPARENT, TRACEPARENT.replace(/01$/, 'ff')), { nil: undefined }),
  name: words(100),
  type: fc.constantFrom('', 'GENERIC'),
  scopes: fc.uniqueArray(fc.stringMatching(/^[A-Za-z0-9._:/*-]{1,100}$/), { maxLength: 20 }),
  labels: fc.dictionary(fc.stringMatching(/^[a-z0-9][a-z0-9._/-]{0,62}$/), words(50)),
  expiration: fc.oneof(
    fc.constant({ kind: 'default' as const }),
    fc.integer({ min: 1, max: 1e12 }).map((ttlMs) => ({ kind: 'after' as const, ttlMs })),
  ),
  reason: fc.constantFrom(...REVOCATION_REASONS),
  reasonDetail: words(250),
});

/** The events of a key that is created and revoked, as the rules make them. */
function makeEvents(change: Changed): AuditEvent[] {
  const { organization = acme, source = SOURCE, eventIds, times, requestId, traceparent } = change;
  const keyspace = aKeyspace({
    name: organization.keyspace,
    types: change.type === '' ? { allowed: [] } : { allowed: [change.type], default: change.type },
  });
  const actor = { type: 'USER' as const, id: change.actorId };
  const mutation: Mutation = aMutation({ organization, actor, ...(traceparent !== undefined && { traceparent }) });
  const request = requestId !== undefined && { request: { method: 'CreateKey', requestId, hash: '0'.repeat(64) } };
  const drawn = drawToCreate(keyspace);
  const state = { organization: newOrganization(organization), selected: [] as Key[], listed: [] };

  const created = createKey(state, { ...change, mutation: { ...mutation, ...request } }, keyspace, {
    now: times?.[0] ?? drawn.now,
    keyId: change.keyId ?? drawn.keyId,
    eventId: eventIds?.[0] ?? drawn.eventId,
    credential: { ...drawn.credential, display: change.display ?? drawn.credential.display },
  });
  if (isRefusal(created)) throw new Error(created.refused);
  const first = toCommit(state, created, source);

  const { now, eventIds: drawnIds } = drawToRevoke();
  const { key } = created.answer;
  const { reason, reasonDetail } = change;
  const revoked = revokeKey(
    { ...state, organization: first.organization, selected: [key] },
    { mutation, selector: { by: 'key_id', keyId: key.keyId }, reason, reasonDetail },
    { now: times?.[1] ?? now, eventIds: [eventIds?.[1] ?? drawnIds[0], drawnIds[1]] },
  );
  if (isRefusal(revoked)) throw new Error(revoked.refused);
  return [...first.events, ...toCommit({ ...state, organization: first.organization }, revoked, source).events];
}

/** The page's code in one language. */
function blocksOf(language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(([, code]) => code ?? '');
}

/** The first column of the table that is headed so. */
function rowsOf(heading: string): string[] {
  const table = new RegExp(`^\\| ${heading} .*\n\\|[ |-]+\n((?:\\|.*\n)+)`, 'm').exec(page)?.[1] ?? '';
  return [...table.matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name ?? '');
}

function pathsOf({ properties = {} }: Schema, prefix = ''): string[] {
  return Object.entries(properties).flatMap(([name, inner]) => [
    `${prefix}${name}`,
    ...pathsOf(inner, `${prefix}${name}.`),
  ]);
}

function textsOf(events: readonly AuditEvent[]): string[] {
  return events.map(({ cloudEvent }) => cloudEvent);
}

function at(events: readonly AuditEvent[], sequence: number, change: (event: AuditEvent) => AuditEvent): AuditEvent[] {
  return events.map((event) => (event.sequence === sequence ? change(event) : event));
}
