/** docs/operations.md names what there is: commands and their options, settings, messages of the log, pages and headings. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { expect, test } from 'vitest';

import { createProgram } from '../../src/cli/program.js';
import { parseSettings } from '../../src/config/settings.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const DOCS = join(ROOT, 'docs');
const page = readFileSync(join(DOCS, 'operations.md'), 'utf8');
const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, code = '']) => code.replaceAll(/\\\n\s*/g, ''));
const spans = [...page.replaceAll(/^```.*?^```/gms, '').matchAll(/`([^`]+)`/g)].map(([, code = '']) =>
  code.replaceAll(/\s+/g, ' '),
);
const OTHER_COMMANDS = /^(npm|npx|docker|mongodump) /;

const sink = new Writable({ write: (_chunk, _encoding, done) => done() });
const program = createProgram({ stdin: process.stdin, stdout: sink, stderr: sink, env: {} }, () => undefined);

test('every command that is shown exists, with its options', () => {
  const shown = [...blocks.flatMap((block) => block.split('\n')), ...spans].flatMap((line) => {
    const [, command] = /(?:^|npx |\(umask 077; |docker exec \w+ )keyreeve (\S.*?)(?= [<>|]|\)|$)/.exec(line) ?? [];
    return command === undefined ? [] : [command];
  });
  expect(shown.length).toBeGreaterThan(15);
  for (const command of shown) {
    const words = command.split(' ');
    let found: Command = program;
    for (let next = findIn(found, words[0]); next; next = findIn(found, words[0])) {
      found = next;
      words.shift();
    }
    expect(found, command).not.toBe(program);
    const known = found.options.map(({ long }) => long);
    for (const option of words.filter((word) => word.startsWith('--'))) expect(known, command).toContain(option);
  }
});

test('every variable that is named is one that the service or the command reads', () => {
  const names = new Set(page.match(/KEYREEVE_[A-Z_]+/g));
  expect(names.size).toBeGreaterThan(15);
  for (const name of names)
    expect(JSON.stringify(parseSettings({ [name]: 'x' })), name).not.toContain('unknown variable');
});

test('every message that is quoted is one that the service has', () => {
  const source = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts') && !path.startsWith('gen'))
    .map((path) => readFileSync(join(ROOT, 'src', path), 'utf8'))
    .join('\n');
  const quoted = spans.filter(
    (text) => /^[a-z]\S* [a-z]/.test(text) && !text.startsWith('keyreeve ') && !OTHER_COMMANDS.test(text),
  );
  expect(quoted.length).toBeGreaterThan(5);
  for (const text of quoted) expect(source, text).toContain(text);
});

test('every page and every heading that is linked to exists', () => {
  const links = [...page.matchAll(/\]\(([^)#]*)(?:#([^)]*))?\)/g)].filter(([, path = '']) => path.endsWith('.md'));
  expect(links.length).toBeGreaterThan(5);
  for (const [, path = '', heading] of links) {
    const file = resolve(DOCS, path);
    expect(existsSync(file), path).toBe(true);
    if (heading === undefined) continue;
    const headings = [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, title = '']) => slugOf(title));
    expect(headings, path).toContain(heading);
  }
});

function findIn(command: Command, name: string | undefined): Command | undefined {
  return command.commands.find((one) => one.name() === name);
}

/** As GitHub makes them. */
function slugOf(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
}
