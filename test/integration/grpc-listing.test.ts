/** Listing keys and audit events: pages that neither repeat nor hide a row, and tokens that fit their listing alone. */
import { expect, test } from 'vitest';

import type { AuditEvent } from '../../src/gen/keyreeve/v1/audit_event.js';
import { ListAuditEventsRequest, type ListAuditEventsResponse } from '../../src/gen/keyreeve/v1/audit_service.js';
import { type Key, KeyState } from '../../src/gen/keyreeve/v1/key.js';
import { ListKeysRequest, type ListKeysResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { GENESIS_HASH } from '../../src/keys/organization.js';
import { call } from '../support/call.js';
import { aKey } from '../support/domain.js';
import { create, startServer, type TestServer, toCreate, toldBy, toRevoke } from '../support/grpc-server.js';
import { put } from '../support/store-calls.js';

const listKeys = ({ keys }: TestServer, fields: Partial<ListKeysRequest> = {}) =>
  call<ListKeysResponse>((done) =>
    keys.listKeys({ ...ListKeysRequest.fromPartial({}), keyspace: 'shop', organizationId: 'acme', ...fields }, done),
  );
const listEvents = ({ audit }: TestServer, fields: Partial<ListAuditEventsRequest> = {}) =>
  call<ListAuditEventsResponse>((done) =>
    audit.listAuditEvents(
      { ...ListAuditEventsRequest.fromPartial({}), keyspace: 'shop', organizationId: 'acme', ...fields },
      done,
    ),
  );

/** Every page, one after the other. */
async function pagesOf<Page extends { nextPageToken: string }>(
  list: (pageToken: string) => Promise<Page>,
): Promise<Page[]> {
  const pages: Page[] = [];
  let pageToken = '';
  do {
    const page = await list(pageToken);
    pages.push(page);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return pages;
}

async function createMany(
  service: TestServer,
  count: number,
  fields: Parameters<typeof create>[1] = {},
): Promise<Key[]> {
  const keys: Key[] = [];
  for (let n = 0; n < count; n += 1) keys.push((await create(service, { name: `key-${n}`, ...fields })).key);
  return keys;
}

const idsOf = (keys: readonly Key[]) => keys.map(({ keyId }) => keyId);

test('keys are listed newest first, each once, whatever the page size', async () => {
  await using service = await startServer();
  const newestFirst = idsOf(await createMany(service, 7)).reverse();
  for (const pageSize of [0, 1, 2, 3, 7, 8, 500, 2_147_483_647]) {
    const pages = await pagesOf((pageToken) => listKeys(service, { pageSize, pageToken }));
    expect(idsOf(pages.flatMap(({ keys }) => keys))).toEqual(newestFirst);
    expect(pages).toHaveLength(pageSize === 0 ? 1 : Math.ceil(7 / Math.min(pageSize, 7)));
  }
  expect(await listKeys(service, { organizationId: 'nobody' })).toEqual({ keys: [], nextPageToken: '' });
});

test('a page holds 50 keys unless asked otherwise, and 500 at most', async () => {
  await using service = await startServer();
  await put(
    service.store,
    Array.from({ length: 502 }, () => aKey()),
  );
  expect((await listKeys(service)).keys).toHaveLength(50);
  const pages = await pagesOf((pageToken) => listKeys(service, { pageSize: 100_000, pageToken }));
  expect(pages.map(({ keys }) => keys.length)).toEqual([500, 2]);
});

test('a page ends early at 1 MiB, and the listing goes on after it', async () => {
  await using service = await startServer();
  const labels = { note: 'x'.repeat(2990) };
  await put(
    service.store,
    Array.from({ length: 500 }, () => aKey({ labels })),
  );
  const pages = await pagesOf((pageToken) => listKeys(service, { pageSize: 500, pageToken }));
  expect(pages.length).toBeGreaterThan(1);
  expect(new Set(pages.flatMap(({ keys }) => idsOf(keys))).size).toBe(500);
  expect(pages[0]?.keys.length).toBeGreaterThan(250);
});

test('keys that are created while a listing goes on neither repeat nor hide any', async () => {
  await using service = await startServer();
  const newestFirst = idsOf(await createMany(service, 6)).reverse();
  const first = await listKeys(service, { pageSize: 2 });
  await createMany(service, 3);
  const second = await listKeys(service, { pageSize: 2, pageToken: first.nextPageToken });
  await createMany(service, 3);
  const third = await listKeys(service, { pageSize: 2, pageToken: second.nextPageToken });
  expect(idsOf([first, second, third].flatMap(({ keys }) => keys))).toEqual(newestFirst);
});

test('states are judged as they were at the first page, and shown as they are', async () => {
  await using service = await startServer();
  const expiration = { $case: 'ttl', value: { seconds: 60n, nanos: 0 } } as const;
  const newestFirst = idsOf(await createMany(service, 4, { expiration })).reverse();
  const filter = { states: [KeyState.ACTIVE], pageSize: 2 };
  const first = await listKeys(service, filter);
  service.time.offsetMs = 60_000;
  const second = await listKeys(service, { ...filter, pageToken: first.nextPageToken });
  expect(idsOf([...first.keys, ...second.keys])).toEqual(newestFirst);
  expect(second.keys.map(({ state }) => state)).toEqual([KeyState.EXPIRED, KeyState.EXPIRED]);
  expect((await listKeys(service, filter)).keys).toEqual([]);
});

test('revoked keys are listed where they are asked for, and states and types filter', async () => {
  await using service = await startServer();
  const there = { keyspace: 'named' };
  const generic = (await create(service, { ...there, name: 'generic' })).key;
  const aws = (await create(service, { ...there, name: 'aws', type: 'AWS' })).key;
  const revoked = (await create(service, { ...there, name: 'revoked' })).key;
  await call((done) => service.keys.revokeKey(toRevoke(revoked), done));
  const ids = async (fields: Partial<ListKeysRequest>) =>
    idsOf((await listKeys(service, { ...there, ...fields })).keys);
  expect(await ids({})).toEqual([aws.keyId, generic.keyId]);
  expect(await ids({ states: [KeyState.REVOKED] })).toEqual([revoked.keyId]);
  expect(await ids({ states: [KeyState.REVOKED, KeyState.ACTIVE] })).toHaveLength(3);
  expect(await ids({ types: ['AWS'] })).toEqual([aws.keyId]);
  expect(await ids({ types: ['GENERIC', 'AWS', 'GENERIC'] })).toHaveLength(2);
  // What the server does not know matches nothing, and takes nothing away from what else was asked for.
  expect(await ids({ types: ['AZURE'] })).toEqual([]);
  expect(await ids({ types: ['AZURE', 'AWS'] })).toEqual([aws.keyId]);
  expect(await ids({ states: [KeyState.UNRECOGNIZED] })).toEqual([]);
  expect(await ids({ states: [KeyState.UNSPECIFIED] })).toEqual([]);
});

test('a page token fits its call, its organization and its filter alone, and any page size', async () => {
  await using service = await startServer();
  await createMany(service, 4);
  await createMany(service, 4, { organizationId: 'other' });
  await createMany(service, 4, { keyspace: 'named' });
  const { nextPageToken: token } = await listKeys(service, { pageSize: 2 });
  expect((await listKeys(service, { pageSize: 1, pageToken: token })).keys).toHaveLength(1);
  const refused = { code: 'INVALID_ARGUMENT', reason: 'PAGE_TOKEN_INVALID', fields: ['page_token'] };
  for (const fields of [
    { organizationId: 'other' },
    { keyspace: 'named' },
    { states: [KeyState.ACTIVE] },
    { types: ['AWS'] },
  ]) {
    expect(await toldBy(listKeys(service, { ...fields, pageToken: token }))).toMatchObject(refused);
  }
  expect(await toldBy(listEvents(service, { pageToken: token }))).toMatchObject(refused);
  const altered = Array.from(
    token,
    (character, at) => token.slice(0, at) + (character === 'A' ? 'B' : 'A') + token.slice(at + 1),
  );
  for (const pageToken of [token.slice(0, -1), token.slice(1), `${token}A`, `${token}=`, ` ${token}`, ...altered]) {
    expect(await toldBy(listKeys(service, { pageToken }))).toMatchObject(refused);
  }
});

test('events are listed in order, page by page, with the head that they lead to', async () => {
  await using service = await startServer();
  const [key, ...more] = await createMany(service, 5);
  if (!key) throw new Error('no key');
  await call((done) => service.keys.revokeKey(toRevoke(key), done));
  const pages = await pagesOf((pageToken) => listEvents(service, { pageSize: 2, pageToken }));
  const events = pages.flatMap((page) => page.events);
  expect(events.map(({ sequence }) => sequence)).toEqual([1n, 2n, 3n, 4n, 5n, 6n]);
  for (const page of pages) expect(page).toMatchObject({ headSequence: 6n, headHash: hashOf(events.at(-1)) });
  const sequences = async (fields: Partial<ListAuditEventsRequest>) =>
    (await listEvents(service, fields)).events.map(({ sequence }) => Number(sequence));
  expect(await sequences({ keyId: key.keyId })).toEqual([1, 6]);
  expect(await sequences({ types: ['key.revoked'] })).toEqual([6]);
  expect(await sequences({ types: ['key.revoked', 'key.rotated'], keyId: more[0]?.keyId ?? '' })).toEqual([]);
  expect(await sequences({ afterSequence: 4n })).toEqual([5, 6]);
  expect(await sequences({ afterSequence: 6n })).toEqual([]);
});

test('what matches no event still tells the head', async () => {
  await using service = await startServer();
  await createMany(service, 2);
  const all = await listEvents(service);
  const head = { events: [], nextPageToken: '', headSequence: 2n, headHash: all.headHash };
  for (const fields of [
    { afterSequence: 2n },
    { afterSequence: 2n ** 53n },
    { afterSequence: 2n ** 64n - 1n },
    { types: ['key.exploded'] },
    { types: ['keyreeve.key.created'] },
    { keyId: 'no key id' },
    { keyId: 'key_00000000000000000000000000' },
  ]) {
    expect(await listEvents(service, fields)).toEqual(head);
  }
  expect(await listEvents(service, { organizationId: 'nobody' })).toEqual({
    events: [],
    nextPageToken: '',
    headSequence: 0n,
    headHash: GENESIS_HASH,
  });
});

test('a page of events ends early at 1 MiB, and its token fits its filter alone', async () => {
  await using service = await startServer();
  const name = '𝕏'.repeat(200);
  const scopes = Array.from({ length: 30 }, (_, n) => `${'s'.repeat(90)}${n}`);
  const labels = new Map([['note', 'x'.repeat(2990)]]);
  for (let n = 0; n < 200; n += 1) {
    await call((done) => service.keys.createKey(toCreate({ name, scopes, labels }), done));
  }
  const pages = await pagesOf((pageToken) => listEvents(service, { pageSize: 500, pageToken }));
  expect(pages.length).toBeGreaterThan(1);
  expect(pages.flatMap(({ events }) => events)).toHaveLength(200);
  const pageToken = pages[0]?.nextPageToken ?? '';
  for (const fields of [{ afterSequence: 1n }, { types: ['key.created'] }, { organizationId: 'other' }]) {
    expect(await toldBy(listEvents(service, { ...fields, pageToken }))).toMatchObject({ reason: 'PAGE_TOKEN_INVALID' });
  }
});

function hashOf(event: AuditEvent | undefined): string {
  const { data } = JSON.parse(event?.cloudEvent ?? '{}') as { data: { hash: string } };
  return data.hash;
}
