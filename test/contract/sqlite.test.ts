import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'libsql';
import { describe, expect, test } from 'vitest';

import { type Clock, systemClock } from '../../src/keys/clock.js';
import { organizationPath } from '../../src/keys/organization.js';
import type { Store } from '../../src/store/port.js';
import { openSqliteStore } from '../../src/store/sqlite/open.js';
import { aKey, aMutation, noon, SOURCE } from '../support/domain.js';
import { expectWhole } from '../support/expect-whole.js';
import { makeGuardedFolder } from '../support/guard.js';
import { openStoreAt } from '../support/open-store.js';
import { startStoreProcess } from '../support/start-store-process.js';
import { create, granted, keysOf, organizationsOf, put, tryCreate } from '../support/store-calls.js';
import { describeStore } from './store.js';

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
    for (const expected of [['schema version 1: created the tables'], []]) {
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
      'a newer release wrote it (schema version 99, this one knows 1): run that release or a later one',
    );
    write('PRAGMA user_version = 1');
    await using store = open(folder.path);
    await create(store);
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
    const clock = { now: () => new Date(nowMs), monotonicMs: () => systemClock.monotonicMs() };
    await using store = open(folder.path, { clock });
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
