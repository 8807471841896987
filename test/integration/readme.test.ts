/** The README does what it says. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { REASON_CODES } from '../../src/grpc/errors.js';
import { startService } from '../support/service.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const readme = await readFile(join(ROOT, 'README.md'), 'utf8');

test('the walk-through creates, verifies and revokes a key, by command and by grpcurl, and shows the audit', async () => {
  await using service = await startService();
  const folder = await mkdtemp(join(tmpdir(), 'keyreeve-readme-'));
  try {
    const { stdout } = await promisify(execFile)('bash', ['-eu', '-c', walkThrough(service.dataDir, service.address)], {
      cwd: folder,
      env: { PATH: process.env.PATH, KEYREEVE_SERVER: service.address },
    });
    // What somebody would look for, in this order, between ids and times that differ each time.
    const telling =
      /^(NOT )?VALID.*|^Revoked .* of .*|^denied.*|^CI pipeline .* revoked|\d+ events of .*|"decision": .*|"headSequence": .*/gm;
    expect(
      stdout.match(telling)?.map((line) => line.replace(/key_\w+|hrdly_\w+\.\.\.| at .*Z\./g, '…').replace(/ +/g, ' ')),
    ).toEqual([
      'VALID',
      'Revoked … (CI pipeline) of hygiara/acme…',
      'NOT VALID: REVOKED',
      'denied, exit code 1',
      'CI pipeline … … revoked',
      '2 events of 1 organization read: 0 faults.',
      '"decision": "DECISION_VALID",',
      '"decision": "DECISION_REVOKED",',
      '"headSequence": "4",',
    ]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('more of the command rotates, updates, suspends and imports, and tells which line is refused', async () => {
  await using service = await startService();
  const folder = await mkdtemp(join(tmpdir(), 'keyreeve-readme-'));
  try {
    const { stdout, stderr } = await promisify(execFile)('bash', ['-eu', '-c', moreOfTheCommand()], {
      cwd: folder,
      env: { PATH: process.env.PATH, KEYREEVE_SERVER: service.address },
    });
    const telling = /^(?:Created|Rotated|Updated|The old key)(?= )|^suspended +\w+|^\d lines.*|^exit code \d/gm;
    expect(stdout.match(telling)?.map((line) => line.replace(/ +/g, ' '))).toEqual([
      'Created',
      'Rotated',
      'The old key',
      'Updated',
      'Updated',
      'suspended no',
      'Updated',
      'suspended yes',
      'Updated',
      'suspended no',
      '2 lines: 1 imported, 0 already there, 1 refused.',
      'exit code 1',
    ]);
    expect(stderr).toMatch(/^line 2: DIGEST_INVALID/m);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('every reason that a call can be refused with is listed under its code, and no other', () => {
  const listed = new Map<string, string>();
  for (const [, code, reasons] of readme.matchAll(/^\| `([A-Z_]+)` +\| (`[A-Z_]+`.*) \|$/gm)) {
    for (const [, reason] of (reasons ?? '').matchAll(/`([A-Z_]+)`/g)) listed.set(reason ?? '', code ?? '');
  }
  const raised = Object.entries(REASON_CODES).map(([reason, code]) => [reason, status[code]] as const);
  expect(Object.fromEntries(listed)).toEqual(Object.fromEntries(raised));
});

/** The commands as they stand there, run from another folder against a service elsewhere; `buf curl` stands in for grpcurl. */
function walkThrough(dataDir: string, address: string): string {
  const blocks = blocksOf('A key in a minute');
  expect(blocks).toHaveLength(3);
  return asBuilt(blocks)
    .replaceAll('data/audit.jsonl', join(dataDir, 'audit.jsonl'))
    .replaceAll(/grpcurl -plaintext -d (\S+|'[^']*') 127\.0\.0\.1:50051 (\S+)/g, (_all, data: string, method: string) =>
      [
        join(ROOT, 'node_modules/.bin/buf'),
        `curl --protocol grpc --http2-prior-knowledge -d ${data === '@' ? '@-' : data} http://${address}/${method}`,
      ].join(' '),
    );
}

function moreOfTheCommand(): string {
  const blocks = blocksOf('More of the command');
  expect(blocks).toHaveLength(2);
  return asBuilt(blocks);
}

function blocksOf(heading: string): string[] {
  const section = new RegExp(`^## ${heading}\n(.*?)^## `, 'ms').exec(readme)?.[1] ?? '';
  return [...section.matchAll(/^```sh\n(.*?)^```/gms)].map(([, commands]) => commands ?? '');
}

function asBuilt(blocks: readonly string[]): string {
  return blocks.join('').replaceAll('npx keyreeve', `${process.execPath} ${join(ROOT, 'dist/cli/main.js')}`);
}
