import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';

import { openFileSink } from '../../src/audit/file-sink.js';
import { readAuditFile } from '../../src/audit/read-file.js';
import { type ReadableSink, SinkFault } from '../../src/audit/sink.js';
import { type Verdict, verifyChain } from '../../src/audit/verify-chain.js';
import type { AuditEvent } from '../../src/keys/event.js';
import { captureLog, makeChain, silentLog } from '../support/audit.js';
import { type GuardedFolder, makeGuardedFolder } from '../support/guard.js';

let folder: GuardedFolder;
let path: string;
let tests = 0;
beforeAll(async () => {
  folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-file-sink-'));
});
beforeEach(() => {
  path = join(folder.path, `${(tests += 1)}`, 'audit.jsonl');
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

const events = makeChain(6);
const linesOf = (some: readonly AuditEvent[]) => some.map(({ cloudEvent }) => `${cloudEvent}\n`).join('');

test('one line an event, the canonical text itself, in a file for its owner only', async () => {
  {
    await using sink = await openFileSink(path, silentLog);
    await sink.publish(0, events.slice(0, 2), 1000);
    await sink.publish(0, events.slice(2), 1000);
  }
  expect(await readFile(path, 'utf8')).toBe(linesOf(events));
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await verify()).toMatchObject({ events: 6, faultCount: 0 });
});

test('every organization shares the one lane', async () => {
  await using sink = await openFileSink(path, silentLog);
  expect(sink.laneOf({ keyspace: 'shop', organizationId: 'acme' })).toBe(0);
  expect(sink.laneOf({ keyspace: 'shop', organizationId: 'other' })).toBe(0);
});

test('each publishing answers where the file ends then, and what lies behind that is read from there', async () => {
  await using sink = await openFileSink(path, silentLog);
  const end = await sink.publish(0, events.slice(0, 2), 1000);
  expect(end).toBe(Buffer.byteLength(linesOf(events.slice(0, 2))));
  const last = await sink.publish(0, events.slice(2), 1000);
  expect(last).toBe(Buffer.byteLength(linesOf(events)));

  const [, second, ...others] = textsOf(events);
  // The line before the position comes along: by it one sees whether this is still the same file.
  expect(await read(sink, end)).toEqual({ texts: [second, ...others], end: last });
  expect(await read(sink, last)).toEqual({ texts: textsOf(events).slice(5), end: last });
});

test('a position that the file never came to, and none, have it read from the beginning', async () => {
  await using sink = await openFileSink(path, silentLog);
  expect(await read(sink, 10)).toEqual({ texts: [], end: 0 });
  const end = await sink.publish(0, events, 1000);
  for (const position of [undefined, 0, end + 1]) {
    expect(await read(sink, position)).toEqual({ texts: textsOf(events), end });
  }
});

test('a position in the middle of a line has that line read whole', async () => {
  await using sink = await openFileSink(path, silentLog);
  const end = await sink.publish(0, events, 1000);
  expect(await read(sink, end - 5)).toEqual({ texts: textsOf(events).slice(5), end });
});

test('a reopened file goes on where it ended', async () => {
  for (const event of events) {
    await using sink = await openFileSink(path, silentLog);
    await sink.publish(0, [event], 1000);
  }
  expect(await readFile(path, 'utf8')).toBe(linesOf(events));
});

test.each([
  ['a part of its first event', 0, 10],
  ['a part of a later event', 3, 100],
  ['an event that lacks only its newline', 4, events[4]?.cloudEvent.length ?? 0],
  ['one byte', 2, 1],
])(
  'a file that ends in %s, as a crash leaves it, is cut back to whole lines with a warning',
  async (_, whole, bytes) => {
    const half = events[whole]?.cloudEvent.slice(0, bytes) ?? '';
    await mkdir(join(path, '..'));
    await writeFile(path, linesOf(events.slice(0, whole)) + half);
    const { log, lines } = captureLog();
    await using sink = await openFileSink(path, log);
    expect(lines).toMatchObject([{ level: 40, bytes: Buffer.byteLength(half) }]);
    await sink.publish(0, events.slice(whole), 1000);
    expect(await readFile(path, 'utf8')).toBe(linesOf(events));
  },
);

test('a half line longer than what is read at once is found whole', async () => {
  await mkdir(join(path, '..'));
  await writeFile(path, linesOf(events.slice(0, 1)) + 'x'.repeat(20_000));
  await using sink = await openFileSink(path, silentLog);
  await sink.publish(0, events.slice(1), 1000);
  expect(await readFile(path, 'utf8')).toBe(linesOf(events));
});

test('a half line that somebody else leaves while the file is open is cut off before the next event', async () => {
  const { log, lines } = captureLog();
  await using sink = await openFileSink(path, log);
  await sink.publish(0, events.slice(0, 2), 1000);
  await appendFile(path, '{"half":');
  await sink.publish(0, events.slice(2), 1000);
  expect(await readFile(path, 'utf8')).toBe(linesOf(events));
  expect(lines).toHaveLength(1);
});

test('a file that was truncated is appended to, not overwritten with a hole', async () => {
  await using sink = await openFileSink(path, silentLog);
  await sink.publish(0, events.slice(0, 2), 1000);
  await truncate(path, 0);
  await sink.publish(0, events.slice(2), 1000);
  expect(await readFile(path, 'utf8')).toBe(linesOf(events.slice(2)));
});

test('a file that was moved away gets a successor under its name, and a removed one too', async () => {
  const { log, lines } = captureLog();
  await using sink = await openFileSink(path, log);
  await sink.publish(0, events.slice(0, 2), 1000);
  await rename(path, `${path}.1`);
  await sink.publish(0, events.slice(2, 4), 1000);
  expect(await readFile(`${path}.1`, 'utf8')).toBe(linesOf(events.slice(0, 2)));
  await rm(path);
  await sink.publish(0, events.slice(4), 1000);
  expect(await readFile(path, 'utf8')).toBe(linesOf(events.slice(4)));
  expect(lines).toHaveLength(2);
});

test('where the file cannot be made, opening says why', async () => {
  await mkdir(path, { recursive: true });
  await expect(openFileSink(path, silentLog)).rejects.toThrow(/audit\.jsonl cannot be opened: EISDIR/);
  await writeFile(join(path, 'file'), '');
  await expect(openFileSink(join(path, 'file', 'audit.jsonl'), silentLog)).rejects.toThrow(SinkFault);
});

test('a disk that is full leaves no half line, and the file goes on when there is room again', async () => {
  const full = await publishUnderLimit(events, 1);
  expect(full.fault).toBe('unavailable');
  expect(full.reason).toContain('EFBIG');
  const written = await readFile(path, 'utf8');
  expect(written).toBe(linesOf(events.slice(0, full.published)));
  expect(full.published).toBeLessThan(events.length);

  await using sink = await openFileSink(path, silentLog);
  await sink.publish(0, events.slice(full.published), 1000);
  expect(await verify()).toMatchObject({ events: 6, repeats: 0, faultCount: 0 });
});

test('a line that is read from a position is told by where in the file it begins, and otherwise by its number', async () => {
  await using sink = await openFileSink(path, silentLog);
  await sink.publish(0, events.slice(0, 2), 1000);
  const end = await sink.publish(0, events.slice(2, 3), 1000);
  await sink.publish(0, events.slice(3, 5), 1000);
  const positionsFrom = async (position: number) => {
    const found = [];
    for await (const entry of (await sink.readFrom(new Map([[0, position]]))).entries) found.push(entry);
    return found.map((entry) => entry.position);
  };
  const starts = [2, 3, 4].map((count) => Buffer.byteLength(linesOf(events.slice(0, count))));
  expect(await positionsFrom(end)).toEqual(starts.map((start) => `the line at byte ${start}`));
  expect(await positionsFrom(0)).toEqual(['line 1', 'line 2', 'line 3', 'line 4', 'line 5']);
});

const textsOf = (some: readonly AuditEvent[]) => some.map(({ cloudEvent }) => cloudEvent);

async function read(sink: ReadableSink, position?: number): Promise<{ texts: string[]; end: number | undefined }> {
  const { entries, ends, isEmpty } = await sink.readFrom(new Map(position === undefined ? [] : [[0, position]]));
  const texts = [];
  for await (const { text } of entries) texts.push(text);
  expect(isEmpty).toBe(texts.length === 0);
  return { texts, end: ends.get(0) };
}

interface UnderLimit {
  published: number;
  fault?: string;
  reason?: string;
}

/** Publishes one event after the other in a process whose files may grow to so many KiB. */
async function publishUnderLimit(some: readonly AuditEvent[], kib: number): Promise<UnderLimit> {
  const program = `
    import { pino } from 'pino';
    import { openFileSink } from ${JSON.stringify(fileURLToPath(new URL('../../src/audit/file-sink.ts', import.meta.url)))};
    const events = JSON.parse(process.argv[1]);
    const sink = await openFileSink(process.argv[2], pino({ level: 'silent' }));
    let published = 0;
    let failure = {};
    try {
      for (const event of events) {
        await sink.publish(0, [event], 1000);
        published += 1;
      }
    } catch (error) {
      failure = { fault: error.kind, reason: error.message };
    }
    console.log(JSON.stringify({ published, ...failure }));
  `;
  const run = ['--import', 'tsx', '--input-type=module', '-e', program, '--', JSON.stringify(some), path];
  // bash counts in KiB.
  const child = execFile('bash', ['-c', `ulimit -f ${kib} && exec "$0" "$@"`, process.execPath, ...run]);
  if (!child.stdout || !child.stderr) throw new Error('the process has no output');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as UnderLimit;
}

function verify(): Promise<Verdict> {
  return verifyChain(readAuditFile(path), { repeats: 'counted' });
}
