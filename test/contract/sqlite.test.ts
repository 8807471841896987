import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'libsql';
import { describe, expect, test, vi } from 'vitest';

import { type Clock, systemClock } from '../../src/keys/clock.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { KEY_STATES } from '../../src/keys/key.js';
import { keyspaceFactsOf } from '../../src/keys/keyspace-facts.js';
import { organizationPath } from '../../src/keys/organization.js';
import type { Store } from '../../src/store/port.js';
import { Connection, type Statement } from '../../src/store/sqlite/connection.js';
import { DATABASE_FILE, openSqliteStore } from '../../src/store/sqlite/open.js';
import { STEPS } from '../../src/store/sqlite/schema.js';
import { acme, aKey, aKeyspace, aMutation, noon, SOURCE } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import { makeGuardedFolder } from '../support/guard.js';
import { openStoreAt } from '../support/open-store.js';
import { startStoreProcess } from '../support/start-store-process.js';
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
  rotate,
  tryCreate,
  tryImport,
  tryRotate,
  tryUpdateOrganization,
} from '../support/store-calls.js';
import { describeStore } from './store.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const NOBODY = 65_534;

const newFolder = () => makeGuardedFolder(join(tmpdir(), 'keyreeve-sqlite-'));

function open(dataDir: string, { clock = systemClock, report = () => undefined }: Partial<Opening> = {}): Store {
  return openSqliteStore({ dataDir, source: SOURCE, clock, report });
}

interface Opening {
  clock: Clock;
  report: (line: string) => void;
}

describeStore('sqlite', async () => {
  const folder = await newFolder();
  const at = { engine: 'sqlite', dataDir: folder.path } as const;
  return {
    at,
    open: () => openStoreAt(at),
    join: (opened) => Promise.resolve(opened),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
});

describe('sqlite: the file', () => {
  test('is made for its owner alone, with the folder, and is one file again once closed', async () => {
    await using folder = await newFolder();
    const dataDir = join(folder.path, 'new', 'data');
    await using store = open(dataDir);
    await create(store);
    expect(modeOf(dataDir)).toBe('700');
    const names = readdirSync(dataDir);
    expect(names).toContain('keyreeve.db');
    for (const name of names) expect(modeOf(join(dataDir, name))).toBe('600');
    await store[Symbol.asyncDispose]();
    expect(readdirSync(dataDir)).toEqual(['keyreeve.db']);
  });

  test('is made ready once, and tells what was done', async () => {
    await using folder = await newFolder();
    const lines: string[] = [];
    const done = [
      'schema version 1: created the tables',
      'schema version 2: made room for settings, rotations, last uses, budgets, peppers and positions',
    ];
    for (const expected of [done, []]) {
      await open(folder.path, { report: (line) => lines.push(line) })[Symbol.asyncDispose]();
      expect(lines.splice(0)).toEqual(expected);
    }
  });

  test('is refused to a second process, which is told why, and given to it once the first has closed', async () => {
    await using folder = await newFolder();
    const place = { engine: 'sqlite', dataDir: folder.path } as const;
    await using store = open(folder.path);
    const key = await create(store);
    {
      await using second = startStoreProcess(place);
      expect(await second.hear()).toEqual({
        failed: `cannot open the database ${folder.path}/keyreeve.db: another process has it open, and only one can`,
      });
    }
    expect(await keysOf(store)).toEqual([key]);
    await store[Symbol.asyncDispose]();
    await using next = startStoreProcess(place);
    expect(await next.hear()).toMatchObject({ did: 'open' });
    expect(await next.ask('list')).toEqual({ did: 'list', keyIds: [key.keyId] });
    expect(() => open(folder.path)).toThrow('another process has it open');
  });

  test('tells whoever follows it of each change, in order, before the one who asked for it is answered', async () => {
    await using folder = await newFolder();
    await using store = open(folder.path);
    const told: string[] = [];
    const following = store.follow({
      keyChanged: ({ keyId, standing, revision }) => told.push(`${keyId} ${standing.kind} ${revision}`),
      digestMoved: (keyId) => told.push(`${keyId} moved`),
      organizationChanged: ({ organizationId, revision }) => told.push(`${organizationId} ${revision}`),
      allChanged: () => told.push('all'),
      knownOrganization: () => undefined,
    });
    expect(following.holds()).toBe(true);
    const creating = create(store);
    // Within the same turn: no verification can come between.
    expect(told).toHaveLength(2);
    const key = await creating;
    await revoke(store, key);
    await revoke(store, key);
    const moved = { ...key.digest, algorithm: 'hmac-sha256', pepperVersion: 1 } as const;
    await store.moveDigest(key.keyId, key.digest, moved, ample());
    await store.moveDigest(key.keyId, key.digest, moved, ample());
    const { keyId } = key;
    // What is rolled back was no change.
    const contradiction = { ...aKey({ keyId }), revision: 7 };
    const change = () => ({
      answer: 0,
      widens: false,
      put: [{ before: contradiction, after: contradiction }],
      events: [],
    });
    await expect(store.change({ organization: acme }, change, ample())).rejects.toThrow('not stored so');
    expect(told).toEqual([`${keyId} usable 1`, 'acme 1', `${keyId} revoked 2`, 'acme 2', `${keyId} moved`]);
    await following[Symbol.asyncDispose]();
    expect(following.holds()).toBe(false);
    await create(store);
    expect(told).toHaveLength(5);
  });

  test('is refused where a copy that was closed lies beside the log of a crash, and opened without that log', async () => {
    await using folder = await newFolder();
    const [file, log] = ['keyreeve.db', 'keyreeve.db-wal'].map((name) => join(folder.path, name));
    if (file === undefined || log === undefined) throw new Error('no paths');
    const first = open(folder.path);
    const key = await create(first);
    await first[Symbol.asyncDispose]();
    const copy = readFileSync(file);

    await using child = startStoreProcess({ engine: 'sqlite', dataDir: folder.path });
    await child.hear();
    await child.ask('create');
    await child.kill();
    expect(statSync(log).size).toBeGreaterThan(0);
    writeFileSync(file, copy);
    expect(() => open(folder.path)).toThrow(
      /keyreeve\.db-wal is not of this file.*out of the way.*docs\/restoring\.md/,
    );
    expect(readFileSync(file)).toEqual(copy);
    rmSync(log);
    await using restored = open(folder.path);
    expect(await keysOf(restored)).toEqual([key]);
  });

  test('is refused where a file lies in the place of the folder, or a folder in its own', async () => {
    await using folder = await newFolder();
    const file = join(folder.path, 'file');
    writeFileSync(file, '');
    expect(() => open(file)).toThrow(`cannot use the data folder ${file}: a file is in its place`);
    expect(() => open(join(file, 'data'))).toThrow('a file is in its place');
    mkdirSync(join(folder.path, 'keyreeve.db'));
    expect(() => open(folder.path)).toThrow('it is no file, or this user may not read and write it');
  });

  test('is refused where this user may not write, in words', async () => {
    await using folder = await newFolder();
    const dataDir = join(folder.path, 'data');
    mkdirSync(dataDir);
    chmodSync(dataDir, 0o555);
    chmodSync(folder.path, 0o555);
    asNobody(() => {
      expect(() => open(dataDir)).toThrow(/^cannot open the database .*: this user may not write there$/);
      expect(() => open(join(folder.path, 'other'))).toThrow(
        /^cannot use the data folder .*: this user may not write there$/,
      );
    });
    chmodSync(folder.path, 0o755);
  });

  test('is refused, and left as it is, where it is no database or damaged', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'keyreeve.db');
    const noDatabase = 'to whom it may concern\n'.repeat(500);
    writeFileSync(path, noDatabase);
    expect(() => open(folder.path)).toThrow('it is damaged, or no database: restore a copy');
    expect(readFileSync(path, 'utf8')).toBe(noDatabase);
  });

  test('answers faults and not "nothing there" where part of it is gone', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'keyreeve.db');
    {
      await using store = open(folder.path);
      await put(
        store,
        Array.from({ length: 200 }, () => aKey()),
      );
    }
    truncateSync(path, 4096 * 8);
    const read = async () => {
      await using store = open(folder.path);
      return await keysOf(store);
    };
    await expect(read()).rejects.toThrow(/damaged|malformed/);
  });

  test('is refused, and left as it is, where another program or a newer release wrote it', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'keyreeve.db');
    const write = (sql: string) => {
      const database = new Database(path);
      database.exec(sql);
      database.close();
    };
    write('CREATE TABLE notes (text)');
    expect(() => open(folder.path)).toThrow('it is the database of another program');
    write('DROP TABLE notes');
    await open(folder.path)[Symbol.asyncDispose]();
    write('PRAGMA user_version = 99');
    expect(() => open(folder.path)).toThrow(
      'a newer release wrote it (schema version 99, this one knows 2): run that release or a later one',
    );
    write('PRAGMA user_version = 2');
    await using store = open(folder.path);
    await create(store);
  });
});

describe('sqlite: a file of an earlier release', () => {
  test('a step that has been released stays as it was', () => {
    expect(STEPS.map(({ sql }) => createHash('sha256').update(sql).digest('hex')).slice(0, 1)).toEqual([
      '5364d1f6ca4ab729169217370430f4827f969b6cd125fbf2f86dcea3ff3dd50d',
    ]);
  });

  test('of version 1 is upgraded in place: it holds what it held, and takes what is new', async () => {
    await using folder = await newFolder();
    await using older = await newFolder();
    const request = { method: 'CreateKey', requestId: 'r1', hash: 'h' };
    const asked = { ask: { name: 'asked', mutation: aMutation({ request }) } };
    const position = { sink: 'file', lane: 0, end: 100 };
    const before = await (async () => {
      await using store = open(folder.path);
      const key = await create(store, asked);
      await revoke(store, await create(store));
      await put(store, [aKey({ standing: { kind: 'disabled' } }), aKey({ expireTime: noon })]);
      await store.rememberKeyspaces([keyspaceFactsOf(aKeyspace())], ample());
      await store.outbox.markPublished((await eventsOf(store)).slice(0, 2), position);
      return { key, holds: await holdings(store) };
    })();
    copyAsVersion1(folder.path, older.path);

    const lines: string[] = [];
    await using store = open(older.path, { report: (line) => lines.push(line) });
    expect(lines).toEqual([
      'schema version 2: made room for settings, rotations, last uses, budgets, peppers and positions',
    ]);
    expect(await holdings(store)).toEqual(before.holds);
    expect(before.holds).toMatchObject({ keys: { length: 4 }, events: { length: 5 }, pending: { length: 3 } });
    expect(await store.outbox.positions('file')).toEqual(new Map());
    expect(await tryCreate(store, asked)).toEqual({ key: before.key, replayed: true });

    const { key, previousKey } = await rotate(store, before.key);
    await store.recordUses(new Map([[key.keyId, noon]]), ample());
    granted(await tryUpdateOrganization(store, { ask: { suspended: true } }));
    const events = await eventsOf(store);
    expect(events.slice(5)).toMatchObject([{ previousKeyId: previousKey.keyId }, { type: 'organization.updated' }]);
    expect((await keysOf(store))[0]).toEqual({ ...key, lastUseTime: noon });
    expect(await store.findOrganization(acme, ample())).toMatchObject({ suspended: true, settingsRevision: 1 });
    expect(await store.countDigests(ample())).toEqual(new Map([[0, 4]]));
  });
});

describe('sqlite: beyond the port', () => {
  test('nobody leads when the file is opened: whoever did is gone', async () => {
    await using folder = await newFolder();
    {
      await using store = open(folder.path);
      await store.outbox.replaceLeadership(undefined, { holder: 'a', count: 1 });
    }
    await using store = open(folder.path);
    expect(await store.outbox.readLeadership()).toBeUndefined();
  });

  test('a request is remembered for two days, and forgotten in passing after that', async () => {
    await using folder = await newFolder();
    let nowMs = noon.getTime();
    await using store = open(folder.path, { clock: reading(() => nowMs) });
    const ask = async (requestId: string) => {
      const mutation = aMutation({ request: { method: 'CreateKey', requestId, hash: 'h' } });
      return granted(await tryCreate(store, { ask: { mutation } })).replayed;
    };
    for (const requestId of ['a', 'b', 'c']) expect(await ask(requestId)).toBe(false);
    nowMs += 47 * HOUR_MS;
    expect(await ask('later')).toBe(false);
    expect(await ask('a')).toBe(true);
    nowMs += 2 * HOUR_MS;
    expect(await ask('latest')).toBe(false);
    for (const requestId of ['a', 'b', 'c']) expect(await ask(requestId)).toBe(false);
    for (const requestId of ['later', 'latest']) expect(await ask(requestId)).toBe(true);
  });

  test('a window is forgotten in passing once it has long ended, and no window before', async () => {
    await using folder = await newFolder();
    let nowMs = noon.getTime();
    const take = async (store: Store, lineageId: string) =>
      store.takeBudget({ lineageId, windowMs: MINUTE_MS, limit: 10, want: 4 }, ample());
    {
      await using store = open(folder.path, { clock: reading(() => nowMs) });
      for (let n = 0; n < 20; n += 1) await take(store, `early ${n}`);
      nowMs += 23 * HOUR_MS;
      await take(store, 'late');
      nowMs += 2 * HOUR_MS;
      await take(store, 'latest');
      expect(await take(store, 'latest')).toMatchObject({ taken: 4, left: 2 });
    }
    using database = openDatabase(folder.path);
    expect(database.all('SELECT lineage_id FROM budgets')).toEqual([{ lineage_id: 'late' }, { lineage_id: 'latest' }]);
  });

  test('a window that is spent ends in its time also where the clock is set back', async () => {
    await using folder = await newFolder();
    let nowMs = noon.getTime();
    await using store = open(folder.path, { clock: reading(() => nowMs) });
    const take = () => store.takeBudget({ lineageId: 'a', windowMs: MINUTE_MS, limit: 3, want: 3 }, ample());
    expect(await take()).toEqual({ taken: 3, left: 0, endsInMs: MINUTE_MS });
    nowMs -= HOUR_MS;
    expect(await take()).toEqual({ taken: 0, left: 0, endsInMs: MINUTE_MS });
    nowMs += MINUTE_MS - 1;
    expect(await take()).toEqual({ taken: 0, left: 0, endsInMs: 1 });
    nowMs += 1;
    expect(await take()).toEqual({ taken: 3, left: 0, endsInMs: MINUTE_MS });
  });

  test('each call finds what it needs by an index, and sorts nothing', async () => {
    await using folder = await newFolder();
    const { store, during } = watchStatements(() => open(folder.path));
    const calls = lookUps(store);
    const ran: string[][] = [];
    for (const { call } of calls) ran.push(await during(call));
    await store[Symbol.asyncDispose]();

    using database = openDatabase(folder.path);
    const found = calls.map(({ does }, at) => [does, [...new Set(ran[at]?.flatMap(database.accesses))]]);
    expect(found).toEqual(calls.map(({ does, finds }) => [does, finds]));
  });

  test('more organizations than one read takes are each told of once', async () => {
    await using folder = await newFolder();
    await using store = open(folder.path);
    const organizations = Array.from({ length: 1001 }, (_, n) => ({
      keyspace: n % 2 ? 'shop' : 'mart',
      organizationId: `org-${n}`,
    }));
    for (const organization of organizations) {
      await create(store, { ask: { mutation: aMutation({ organization }) } });
    }
    const seen = (await organizationsOf(store)).map(organizationPath);
    expect(seen).toHaveLength(1001);
    expect(new Set(seen)).toEqual(new Set(organizations.map(organizationPath)));
  });
});

// The limit is set by util-linux's prlimit; a file that may not grow fails as on a full disk.
describe.runIf(process.platform === 'linux')('sqlite: a full disk', () => {
  test('changes are unavailable, reads go on, and with room again so do changes', { timeout: 60_000 }, async () => {
    await using folder = await newFolder();
    const place = { engine: 'sqlite', dataDir: folder.path } as const;
    const acknowledged: string[] = [];
    {
      await using child = startStoreProcess(place, ['prlimit', '--fsize=1000000:unlimited']);
      expect(await child.hear()).toMatchObject({ did: 'open' });
      let outcome = await child.ask('create');
      while (outcome && 'did' in outcome) {
        acknowledged.push(...outcome.keyIds);
        outcome = await child.ask('create');
      }
      expect(acknowledged.length).toBeGreaterThan(10);
      // Where a change has no room, the little that a ping writes may have.
      do outcome = await child.ask('ping');
      while (outcome && 'did' in outcome);
      for (const order of ['create', 'ping', 'create'] as const) {
        expect(await child.ask(order)).toMatchObject({ kind: 'unavailable' });
      }
      expect(await child.ask('list')).toEqual({ did: 'list', keyIds: [...acknowledged].reverse() });

      execFileSync('prlimit', ['--pid', String(child.pid), '--fsize=unlimited']);
      expect(await child.ask('ping')).toMatchObject({ did: 'ping' });
      for (const again of [await child.ask('create'), await child.ask('create')]) {
        expect(again).toMatchObject({ did: 'create' });
        if (again && 'did' in again) acknowledged.push(...again.keyIds);
      }
      await child.kill();
    }
    await using store = open(folder.path);
    expect((await keysOf(store)).map(({ keyId }) => keyId)).toEqual([...acknowledged].reverse());
    await expectWhole(store);
  });
});

/** A wall clock that is set by the test. */
function reading(nowMs: () => number): Clock {
  return { now: () => new Date(nowMs()), monotonicMs: () => systemClock.monotonicMs() };
}

/** All that a caller can read of a store that holds acme alone. */
async function holdings(store: Store) {
  return {
    keys: await keysOf(store),
    events: await expectWhole(store),
    pending: await store.outbox.pending(100),
    organizations: await organizationsOf(store),
    keyspaces: await store.keyspaceFacts(ample()),
  };
}

/** Puts what a closed store holds into a new file, as the release that knew the first schema step alone wrote it. */
function copyAsVersion1(from: string, to: string): void {
  using database = openDatabase(to);
  database.exec(STEPS[0]?.sql ?? '');
  database.exec(`ATTACH '${join(from, DATABASE_FILE)}' AS newer`);
  const [{ application_id } = {}] = database.all('PRAGMA newer.application_id');
  database.exec(`PRAGMA application_id = ${String(application_id)}; PRAGMA user_version = 1`);
  for (const { name } of database.all("SELECT name FROM main.sqlite_schema WHERE type = 'table'")) {
    const columns = database.all(`SELECT name FROM pragma_table_info('${String(name)}', 'main')`);
    const list = columns.map((column) => column.name).join();
    database.exec(`INSERT INTO main.${String(name)} (${list}) SELECT ${list} FROM newer.${String(name)}`);
  }
}

/** The file of a store that is closed, or not yet made, as the engine sees it. */
function openDatabase(dataDir: string) {
  const database = new Database(join(dataDir, DATABASE_FILE));
  const all = (sql: string) => database.prepare(sql).all([]) as Record<string, unknown>[];
  return {
    all,
    exec: (sql: string) => void database.exec(sql),
    /** How a statement gets at the rows of tables, and what it sorts. */
    accesses: (sql: string): string[] =>
      all(`EXPLAIN QUERY PLAN ${sql}`)
        .map(({ detail }) => String(detail))
        .filter((detail) => /^(SEARCH|SCAN|USE TEMP)/.test(detail) && !/json_each|\(subquery/.test(detail))
        .map((detail) =>
          detail
            .replace(/^SEARCH \w+ USING (COVERING )?INDEX /, '')
            .replace(/^SEARCH (\w+) USING (INTEGER )?PRIMARY KEY/, '$1')
            .replace(' LEFT-JOIN', ''),
        ),
    [Symbol.dispose]: () => void database.close(),
  };
}

/** Tells which statements the store that is opened meanwhile runs during a call, in the order of their preparation. */
function watchStatements(openStore: () => Store) {
  using prepare = vi.spyOn(Connection.prototype, 'prepare');
  using prepareJoin = vi.spyOn(Connection.prototype, 'prepareJoin');
  const store = openStore();
  const prepared = [
    ...prepare.mock.results.map(({ value }, at) => {
      const statement = value as Statement<unknown>;
      const runs = (['get', 'all', 'run'] as const).map((way) => vi.spyOn(statement, way));
      return { sql: prepare.mock.calls[at]?.[0] ?? '', runs };
    }),
    ...prepareJoin.mock.results.map(({ value }, at) => {
      const statement = value as Pick<Statement<unknown>, 'get'>;
      return { sql: prepareJoin.mock.calls[at]?.[0] ?? '', runs: [vi.spyOn(statement, 'get')] };
    }),
  ];
  const during = async (call: () => Promise<unknown>): Promise<string[]> => {
    for (const { runs } of prepared) runs.forEach((run) => run.mockClear());
    await call();
    return prepared.filter(({ runs }) => runs.some((run) => run.mock.calls.length > 0)).map(({ sql }) => sql);
  };
  return { store, during };
}

const OF_ORGANIZATION = 'keyspace=? AND organization_id=?';
const ORGANIZATION = `organizations (${OF_ORGANIZATION})`;
const USES = 'last_uses (key_id=?)';
const BY_ID = 'sqlite_autoindex_keys_1 (key_id=?)';
const CURRENT_BY_NAME = `keys_name (${OF_ORGANIZATION} AND name=? AND revoke_time=?)`;

/** The port's calls, and where each finds its rows: an index, or a table by its key, and the columns sought in it. */
function lookUps(store: Store): { does: string; call: () => Promise<unknown>; finds: string[] }[] {
  const keyspace = aKeyspace({ names: { required: true, unique: true, default: '' } });
  const mutation = aMutation({ request: { method: 'CreateKey', requestId: 'r1', hash: 'h' } });
  const byName = (name: string) => ({ by: 'name', name }) as const;
  const page = { types: ['A'], at: noon, limit: 5 };
  const eventPage = { types: [], afterSequence: 0, limit: 5 };
  const budget = { lineageId: 'a', windowMs: MINUTE_MS, limit: 5 };
  const nothing = { refused: 'KEY_NOT_FOUND' } as const;
  const position = { sink: 'file', lane: 0, end: 1 };
  let key = aKey();
  let events: AuditEvent[] = [];
  return [
    {
      does: 'create with a name and a request',
      call: async () => (key = await create(store, { keyspace, ask: { mutation } })),
      finds: [
        CURRENT_BY_NAME,
        USES,
        ORGANIZATION,
        `sqlite_autoindex_requests_1 (${OF_ORGANIZATION} AND caller=? AND method=? AND request_id=?)`,
        'requests (rowid=?)',
        'requests_time (time<?)',
      ],
    },
    {
      does: 'import with a client id',
      call: () => tryImport(store, { ask: { clientId: 'c', name: 'imported' } }),
      finds: [
        'keys_digest (keyspace=? AND digest=?)',
        USES,
        `keys_client_id (${OF_ORGANIZATION} AND client_id=?)`,
        ORGANIZATION,
      ],
    },
    {
      does: 'rotate by name',
      call: () => tryRotate(store, { keyspace, ask: { selector: byName('ci') } }),
      finds: [CURRENT_BY_NAME, USES, `keys_lineage (${OF_ORGANIZATION} AND lineage_id=?)`, ORGANIZATION, BY_ID],
    },
    {
      does: 'change keys by their ids',
      call: () => store.change({ organization: acme, keyIds: [key.keyId] }, () => nothing, ample()),
      finds: [BY_ID, USES, ORGANIZATION],
    },
    {
      does: 'find by digest',
      call: () => findByDigest(store, key),
      finds: ['keys_digest (keyspace=? AND digest=?)', ORGANIZATION],
    },
    { does: 'find an organization', call: () => store.findOrganization(acme, ample()), finds: [ORGANIZATION] },
    {
      does: 'select by the name of a revoked key',
      call: () => store.selectKeys(acme, byName('gone'), ample()),
      finds: [CURRENT_BY_NAME, USES, `keys_name (${OF_ORGANIZATION} AND name=? AND revoke_time>?)`],
    },
    {
      does: 'list unrevoked keys',
      call: () => store.listKeys(acme, { ...page, states: ['ACTIVE'] }, ample()),
      finds: [`keys_unrevoked (${OF_ORGANIZATION} AND sequence<?)`, USES],
    },
    {
      does: 'list all keys',
      call: () => store.listKeys(acme, { ...page, states: KEY_STATES }, ample()),
      finds: [`keys_sequence (${OF_ORGANIZATION} AND sequence<?)`, USES],
    },
    {
      does: 'count expired keys',
      call: () => store.countExpired(acme, noon, ample()),
      finds: [`keys_expiry (${OF_ORGANIZATION} AND expire_time<?)`],
    },
    {
      does: 'list events',
      call: async () => ({ events } = await store.listEvents(acme, eventPage, ample())),
      finds: [ORGANIZATION, `sqlite_autoindex_events_1 (${OF_ORGANIZATION} AND sequence>?)`],
    },
    {
      does: 'list events of a key',
      call: () => store.listEvents(acme, { ...eventPage, types: ['key.rotated'], keyId: key.keyId }, ample()),
      finds: [
        ORGANIZATION,
        `events_key (${OF_ORGANIZATION} AND key_id=? AND sequence>?)`,
        `events_previous_key (${OF_ORGANIZATION} AND previous_key_id=? AND sequence>?)`,
      ],
    },
    // An upsert seeks by the table's key, and has no plan.
    {
      does: 'record uses',
      call: () => store.recordUses(new Map([[key.keyId, noon]]), ample()),
      finds: [],
    },
    {
      does: 'move a digest',
      call: () => store.moveDigest(key.keyId, key.digest, key.digest, ample()),
      finds: [BY_ID],
    },
    {
      does: 'take from a budget',
      call: () => store.takeBudget({ ...budget, want: 5 }, ample()),
      finds: ['budgets (lineage_id=?)', 'budgets_opened_at (opened_at<?)'],
    },
    {
      does: 'take from a budget that is spent, without a write',
      call: () => store.takeBudget({ ...budget, want: 5 }, ample()),
      finds: ['budgets (lineage_id=?)'],
    },
    { does: 'read a budget', call: () => store.readBudget(budget, ample()), finds: ['budgets (lineage_id=?)'] },
    // The index holds what is pending alone, and is read up to the limit.
    {
      does: 'read what is pending',
      call: () => store.outbox.pending(5),
      finds: ['SCAN events USING INDEX events_pending'],
    },
    {
      does: 'read what is pending of some organizations',
      call: () => store.outbox.pending(5, () => false),
      finds: [
        'SCAN events USING INDEX events_pending',
        'events_pending_of (keyspace=? AND organization_id>?)',
        'events_pending_of (keyspace>?)',
      ],
    },
    {
      does: 'count what is pending',
      call: () => store.outbox.backlog(5),
      finds: ['SCAN events USING COVERING INDEX events_pending'],
    },
    {
      does: 'mark events published',
      call: () => store.outbox.markPublished(events, position),
      finds: [`sqlite_autoindex_events_1 (${OF_ORGANIZATION} AND sequence=?)`],
    },
    { does: 'read positions', call: () => store.outbox.positions('file'), finds: ['positions (sink=?)'] },
    // All that is counted is read, in the index.
    {
      does: 'count digests',
      call: () => store.countDigests(ample()),
      finds: ['SCAN keys USING COVERING INDEX keys_pepper'],
    },
    {
      does: 'look for digests of a pepper',
      call: () => store.hasDigests(1, ample()),
      finds: ['keys_pepper (pepper_version=? AND revoke_time=?)'],
    },
  ];
}

function modeOf(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

/** Runs the work as a user whom modes bind, which they don't the superuser. */
function asNobody(work: () => void): void {
  if (process.getuid?.() === 0) process.seteuid?.(NOBODY);
  try {
    work();
  } finally {
    if (process.getuid?.() === 0) process.seteuid?.(0);
  }
}
