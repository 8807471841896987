import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';

import { Secret } from '../../src/keys/secret.js';
import { createLog, openOutput, toLoggedError } from '../../src/log.js';
import { makeGuardedFolder } from '../support/guard.js';

function linesOf(level: Parameters<typeof createLog>[0], write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  write(createLog(level, { write: (line) => lines.push(line) }));
  return lines;
}

test('a line is JSON with level, time, message and the fields given', () => {
  const [line = ''] = linesOf('info', (log) => log.info({ keyspace: 'shop' }, 'call'));
  expect(JSON.parse(line)).toEqual({
    level: 'info',
    time: expect.stringMatching(/^\d{4}-\d{2}-\d{2}T.*Z$/) as string,
    keyspace: 'shop',
    message: 'call',
  });
});

test('what lies below the level is not written', () => {
  expect(linesOf('warn', (log) => log.info('quiet'))).toEqual([]);
});

test('an error is cut down to type, message, stack and causes, whatever hangs on it', () => {
  const cause = Object.assign(new TypeError('socket'), { request: { token: 'CANARY' } });
  const error = Object.assign(new Error('no answer', { cause }), { document: { secret: 'CANARY' }, code: 'E' });
  const [line = ''] = linesOf('info', (log) => log.error({ err: error }, 'failed'));
  const { err } = JSON.parse(line) as { err: { cause: object } };
  expect(Object.keys(err).sort()).toEqual(['cause', 'message', 'stack', 'type']);
  expect(err).toMatchObject({ type: 'Error', message: 'no answer', cause: { type: 'TypeError', message: 'socket' } });
  expect(line).not.toContain('CANARY');
});

test('a circle of causes ends, and what is no error is told by its kind alone', () => {
  const error = new Error('one');
  error.cause = error;
  expect(JSON.stringify(toLoggedError(error)).length).toBeGreaterThan(0);
  for (const thrown of ['CANARY', { token: 'CANARY' }, undefined, null]) {
    expect(JSON.stringify(toLoggedError(thrown))).not.toContain('CANARY');
  }
});

test('secrets stay out by their type, and by their names where they come as text', () => {
  const [line = ''] = linesOf('info', (log) =>
    log.info(
      { key: new Secret('CANARY'), token: 'CANARY', nested: { secret: 'CANARY', authorization: 'CANARY' } },
      'x',
    ),
  );
  expect(line).toContain('[secret]');
  expect(line).not.toContain('CANARY');
});

test('while the disk is full lines are lost and nothing fails, and afterwards each line is whole', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-log-'));
  const path = join(folder.path, 'log');
  const fd = fs.openSync(path, 'a');
  onTestFinished(() => fs.closeSync(fd));
  const log = createLog('info', openOutput(fd));

  log.info('before');
  const write = fs.writeSync;
  const full = vi.spyOn(fs, 'writeSync').mockImplementation(() => {
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  });
  // The last bytes of the disk take a part of the line.
  full.mockImplementationOnce((to) => write(to, '{"level":'));
  for (let line = 0; line < 1000; line += 1) log.info('lost');
  full.mockRestore();
  log.info('after');
  log.info('and on');

  const lines = fs.readFileSync(path, 'utf8').trim().split('\n');
  expect(lines).toHaveLength(4);
  const [before = '', torn, ...after] = lines;
  expect(torn).toBe('{"level":');
  expect([before, ...after].map((line) => (JSON.parse(line) as { message: string }).message)).toEqual([
    'before',
    'after',
    'and on',
  ]);
});
