import { readFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { Progress } from '../../src/cli/commands/progress.js';
import {
  toEnforcementJson,
  toFailureJson,
  toKeyJson,
  toOrganizationJson,
  toRateLimitJson,
  toVerifiedKeyJson,
} from '../../src/cli/output/messages.js';
import { printable, printableJson } from '../../src/cli/output/printable.js';
import { toFields, toTable } from '../../src/cli/output/table.js';
import { Enforcement } from '../../src/gen/keyreeve/v1/enforcement.js';
import { Failure } from '../../src/gen/keyreeve/v1/failure.js';
import { Key } from '../../src/gen/keyreeve/v1/key.js';
import { Organization } from '../../src/gen/keyreeve/v1/organization.js';
import { RateLimit, VerifiedKey } from '../../src/gen/keyreeve/v1/verification.js';

// What a terminal or a reader could be misled by: controls, bidirectional and invisible formats, odd line breaks.
const MISLEADING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
const anyString = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({
    unit: fc.constantFrom('a', '\u001b', '[', '2', 'J', '\r', '\n', '\u009b', '\u202e', '\u200d', '\ud800'),
  }),
);

test('no text of somebody else moves the cursor or turns the reading direction', () => {
  fc.assert(fc.property(anyString, (text) => !MISLEADING.test(printable(text))));
  expect(printable('a\u001b[2Jb\u202ec')).toBe('a\\u{1b}[2Jb\\u{202e}c');
  expect(printable('Zoë 🔑 鍵')).toBe('Zoë 🔑 鍵');
});

test('escaping JSON for the terminal changes none of its values', () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: 'binary' }), anyString, (value, text) => {
      const json = printableJson({ value, text });
      expect(JSON.parse(json)).toEqual(JSON.parse(JSON.stringify({ value, text })));
      expect(MISLEADING.test(json.replaceAll('\n', ''))).toBe(false);
    }),
  );
});

test('a hostile name stays in its cell, and wide characters keep the columns straight', () => {
  const table = toTable(
    ['name', 'key id'],
    [
      ['a\nb\tc', 'key_1'],
      ['鍵', 'key_2'],
      ['', 'key_3'],
    ],
  );
  expect(table).toBe(
    ['NAME           KEY ID', 'a\\u{a}b\\u{9}c  key_1', '鍵             key_2', '               key_3'].join('\n'),
  );
});

test('a long table has its columns in the same place from the first row to the last', () => {
  const names = Array.from({ length: 120 }, (_, at) => (at === 110 ? 'a name longer than others' : `name ${at}`));
  const lines = toTable(
    ['name', 'key id'],
    names.map((name) => [name, 'key_1']),
  ).split('\n');
  expect(lines).toHaveLength(121);
  expect(new Set(lines.slice(1).map((line) => line.indexOf('key_1')))).toEqual(new Set([27]));
  expect(lines[0]?.indexOf('KEY ID')).toBe(27);
});

test('a field without value is left out', () => {
  expect(
    toFields([
      ['name', 'ci'],
      ['type', ''],
      ['revoked', undefined],
      ['key id', 'key_1'],
    ]),
  ).toBe('name    ci\nkey id  key_1');
});

test('progress is a line every few seconds in a log, and one line that is erased at a terminal', () => {
  const shown = (isTTY: boolean): string => {
    let nowMs = 0;
    let text = '';
    const stderr = Object.assign(
      new Writable({
        write(chunk: Buffer, _encoding, done) {
          text += chunk.toString();
          done();
        },
      }),
      { isTTY },
    );
    const progress = new Progress(stderr, { monotonicMs: () => nowMs });
    for (let events = 10_000; events <= 120_000; events += 10_000) {
      nowMs += 1000;
      progress.show({ events, share: events / 120_000 });
    }
    progress[Symbol.dispose]();
    return text;
  };
  expect(shown(false)).toBe('50,000 events read, 41 %\n100,000 events read, 83 %\n');
  const [, ...lines] = shown(true).split('\r\u001b[K');
  expect(lines).toHaveLength(13);
  expect(lines[0]).toBe('10,000 events read, 8 %');
  expect(lines.at(-1)).toBe('');
});

test.each([
  ['key', 'Key', toKeyJson(Key.create())],
  ['verification', 'VerifiedKey', toVerifiedKeyJson(VerifiedKey.create())],
  ['verification', 'RateLimit', toRateLimitJson(RateLimit.create())],
  ['organization', 'Organization', toOrganizationJson(Organization.create())],
  ['failure', 'Failure', toFailureJson(Failure.create())],
  ['enforcement', 'Enforcement', toEnforcementJson(Enforcement.create())],
])('in %s.proto the JSON of %s has every field, and under the same name', (file, message, json) => {
  expect(Object.keys(json).sort()).toEqual(fieldsOf(file, message).sort());
});

function fieldsOf(file: string, message: string): string[] {
  const proto = readFileSync(new URL(`../../proto/keyreeve/v1/${file}.proto`, import.meta.url), 'utf8');
  const [, body = ''] = new RegExp(`^message ${message} \\{\\n(.*?)^\\}`, 'ms').exec(proto) ?? [];
  return [...body.matchAll(/^ {2}[\w<>., ]+ (\w+) = \d+;/gm)].map(([, name]) => name ?? '');
}
