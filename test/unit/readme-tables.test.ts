/** The README's tables say what the code does where nothing is set. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parse, stringify } from 'yaml';

import { parseKeyspaces } from '../../src/config/keyspaces.js';
import type { Problem } from '../../src/config/problems.js';
import { parseSettings, type Settings } from '../../src/config/settings.js';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The first two cells of each row below this heading: the names, and what stands in code as their default. */
function rowsOf(heading: string): { names: string[]; default: string | undefined }[] {
  const section = new RegExp(`^## ${heading}\n(.*?)(?=^## |(?![^]))`, 'ms').exec(readme)?.[1] ?? '';
  return [...section.matchAll(/^\| (`.*?) +\| (.*?) +\|/gm)].map(([, names = '', value = '']) => ({
    names: [...names.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name),
    default: /^`([^`]+)`$/.exec(value)?.[1],
  }));
}

test('every field of a keyspace is listed, with its default', () => {
  const shop = { name: 'shop', prefix: 'shop_' };
  const read = (fields: object): unknown => parseKeyspaces(stringify({ keyspaces: [{ ...shop, ...fields }] }));
  const rows = rowsOf('Adding a keyspace');

  const [unknown] = read({ zzzzzzzzz: 1 }) as Problem[];
  const known = unknown?.message.replace('unknown field; expected one of ', '').split(', ');
  expect(rows.flatMap(({ names }) => names).sort()).toEqual(known?.sort());

  const stated = rows.flatMap(({ names: [name = ''], default: value }) =>
    value === undefined ? [] : [[name, parse(value) as unknown] as const],
  );
  expect(stated.map(([name]) => name)).toEqual([
    'credential',
    'body_length',
    'display',
    'manage_permissions',
    'cache_ttl',
  ]);
  expect(read(Object.fromEntries(stated))).toEqual(read({}));
});

test('every setting that is listed exists, with its default', () => {
  const rows = rowsOf('Settings').filter(({ default: value }) => value !== undefined);
  expect(rows.length).toBeGreaterThan(5);
  const defaults = parseSettings({}) as Settings;
  for (const { names, default: value } of rows) {
    const settings = parseSettings(Object.fromEntries(names.map((name) => [name, value])));
    // Where a setting is stated that needs another, that is a warning, and nothing else changes.
    expect(settings).toEqual({ ...defaults, warnings: expect.any(Array) as unknown });
    expect(JSON.stringify(settings)).not.toContain('unknown variable');
  }
});

test('every setting that there is, is listed', () => {
  const listed = rowsOf('Settings').flatMap(({ names }) => names);
  const source = readFileSync(new URL('../../src/config/settings.ts', import.meta.url), 'utf8');
  const settings = [...source.matchAll(/^ {2}(KEYREEVE_[A-Z_]+):/gm)]
    .map(([, name = '']) => name)
    .filter((name) => !JSON.stringify(parseSettings({ [name]: 'x' })).includes('does not support it'));
  expect(settings.length).toBeGreaterThan(20);
  expect(listed.sort()).toEqual(settings.sort());
});
