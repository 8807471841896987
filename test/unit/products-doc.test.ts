/** docs/products.md tells of the acceptance suites as they are. */
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { KeyServiceService } from '../../src/gen/keyreeve/v1/key_service.js';
import { AuditServiceService } from '../../src/gen/keyreeve/v1/audit_service.js';
import { OrganizationServiceService } from '../../src/gen/keyreeve/v1/organization_service.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const page = await readFile(join(ROOT, 'docs/products.md'), 'utf8');
const sections = page.split(/^## /m).slice(1);
const suites = (await readdir(join(ROOT, 'test/acceptance'))).map((file) => file.replace('.test.ts', ''));

test('every suite has a table, and every table a suite', () => {
  expect(sections.map(suiteOf).sort()).toEqual(suites.sort());
});

describe.each(sections.map((section) => ({ suite: suiteOf(section), rows: rowsOf(section) })))(
  '$suite',
  ({ suite, rows }) => {
    test('each sentence that is said to have a test has one of its name, and no test is left out', async () => {
      const shown = rows.filter(({ shownBy }) => shownBy === '**test**').map(({ sentence }) => sentence);
      expect(shown.sort()).toEqual((await testsOf(suite)).sort());
    });

    test('a sentence without a test says why, and where another file shows it that file exists', async () => {
      for (const { shownBy } of rows) {
        expect(shownBy).not.toBe('');
        const path = /`(test\/[^`]+)`/.exec(shownBy)?.[1];
        if (path !== undefined) await access(join(ROOT, path));
      }
    });

    test('each call that a sentence needs is one of the API', () => {
      const services = [KeyServiceService, AuditServiceService, OrganizationServiceService];
      const paths = services.flatMap((service) => Object.values<{ path: string }>(service).map(({ path }) => path));
      const calls = paths.map((path) => path.split('/').at(-1));
      const needed = rows.flatMap((row) => row.calls);
      expect(needed.filter((call) => !calls.includes(call))).toEqual([]);
      expect(rows.filter((row) => row.shownBy === '**test**' && row.calls.length === 0)).toEqual([]);
    });
  },
);

function suiteOf(section: string): string {
  return /test\/acceptance\/(\w+)\.test\.ts/.exec(section)?.[1] ?? '';
}

function rowsOf(section: string): { sentence: string; calls: string[]; shownBy: string }[] {
  const cells = [...section.matchAll(/^\| (.*?) +\| (.*?) *\| (.*?) *\|$/gm)].slice(2);
  return cells.map(([, sentence = '', calls = '', shownBy = '']) => ({
    // As the page's formatter escapes them.
    sentence: sentence.replaceAll('\\', ''),
    calls: calls === '' ? [] : calls.split(', '),
    shownBy,
  }));
}

/** The names of a suite's tests, those of a table of cases by the cases' names. */
async function testsOf(suite: string): Promise<string[]> {
  const source = await readFile(join(ROOT, 'test/acceptance', `${suite}.test.ts`), 'utf8');
  const plain = [...source.matchAll(/^ {2}test\(\s*'((?:[^'\\]|\\.)*)'/gm)].map(([, name = '']) => name);
  const cases = [...source.matchAll(/^ {4}\{ name: '([^']*)'/gm)].map(([, name = '']) => name);
  return [...plain, ...cases];
}
