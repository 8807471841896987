/** docs/products.md tells of the acceptance suites as they are. */
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

import { AuthorizationService } from '../../src/gen/envoy/service/auth/v3/external_auth.js';
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
      const shown = rows.filter(hasTest).map(({ sentence }) => sentence);
      expect(shown.sort()).toEqual((await testsOf(suite)).sort());
    });

    test('a sentence without a test says why, and where another file shows it that file exists', async () => {
      for (const { shownBy } of rows) {
        expect(shownBy).not.toBe('');
        for (const [, path = ''] of shownBy.matchAll(/`(test\/[^`]+)`/g)) await access(join(ROOT, path));
      }
    });

    test('a sentence that is the same as another leads to one that is shown or has a reason', () => {
      const sameAs = ({ shownBy }: { shownBy: string }) => /^the same as “(.*)”/.exec(shownBy)?.[1];
      const others = rows.filter((row) => sameAs(row) === undefined).map(({ sentence }) => sentence);
      expect(rows.map(sameAs).filter((other) => other !== undefined && !others.includes(other))).toEqual([]);
    });

    test('each call that a sentence needs is one of the API', () => {
      const services = [KeyServiceService, AuditServiceService, OrganizationServiceService, AuthorizationService];
      const paths = services.flatMap((service) => Object.values<{ path: string }>(service).map(({ path }) => path));
      const calls = paths.map((path) => path.split('/').at(-1));
      const needed = rows.flatMap((row) => row.calls);
      expect(needed.filter((call) => !calls.includes(call))).toEqual([]);
      expect(rows.filter((row) => hasTest(row) && row.calls.length === 0)).toEqual([]);
    });
  },
);

test.each(['test(`of ${n}`, f)', 'test(name, f)', 'test.each([{ name }])("$name", f)', 'test.skip("a", f)'])(
  'a test whose name is not written in the suite, or that may not run, is not passed over: %s',
  (call) => {
    expect(() => testNamesIn(`test('a', f); ${call};`)).toThrow('has no name that can be read');
  },
);

test('tests are found however their names are quoted and wherever they stand', () => {
  expect(
    testNamesIn(`
      if (a) { test("a 'b'", f); }
      test(\`c\`, f);
      test(
        'd\\'s', f);
      test.each([{ name: 'e' }, { n: 1, name: "f" }])('$name', f);
      pattern.test('no name');
    `),
  ).toEqual(["a 'b'", 'c', "d's", 'e', 'f']);
});

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

/** Whether a test shows the sentence, perhaps together with something else. */
function hasTest({ shownBy }: { shownBy: string }): boolean {
  return /^\*\*test\*\*(, and .+)?$/.test(shownBy);
}

async function testsOf(suite: string): Promise<string[]> {
  return testNamesIn(await readFile(join(ROOT, 'test/acceptance', `${suite}.test.ts`), 'utf8'));
}

/**
 * The names of a suite's tests, those of a table of cases by the cases' names.
 * @throws Error where a test's name is not written in the suite, or where it may not run
 */
function testNamesIn(source: string): string[] {
  const names: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && calledOn(node.expression) === 'test') names.push(...namesOf(node));
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('suite.ts', source, ts.ScriptTarget.Latest));
  return names;

  function namesOf({ expression, arguments: [title] }: ts.CallExpression): string[] {
    // The table of `test.each(table)(title, …)`, which is a call within the call.
    if (ts.isPropertyAccessExpression(expression) && expression.name.text === 'each') return [];
    if (ts.isIdentifier(expression) && title && ts.isStringLiteralLike(title)) return [title.text];
    if (ts.isCallExpression(expression) && title && ts.isStringLiteralLike(title) && title.text === '$name') {
      const [table] = expression.arguments;
      if (table && ts.isArrayLiteralExpression(table)) return table.elements.map(nameOfCase);
    }
    throw new Error(`a test has no name that can be read: ${source.slice(expression.pos, expression.end)}`);
  }

  function nameOfCase(one: ts.Node): string {
    const properties = ts.isObjectLiteralExpression(one) ? one.properties.filter(ts.isPropertyAssignment) : [];
    const name = properties.find((property) => ts.isIdentifier(property.name) && property.name.text === 'name');
    if (name && ts.isStringLiteralLike(name.initializer)) return name.initializer.text;
    throw new Error(`a case has no name that can be read: ${source.slice(one.pos, one.end)}`);
  }
}

/** What the chain of calls and properties begins with: `test` of `test.each(…)(…)`. */
function calledOn(expression: ts.Expression): string | undefined {
  if (ts.isIdentifier(expression)) return expression.text;
  if (ts.isPropertyAccessExpression(expression) || ts.isCallExpression(expression)) {
    return calledOn(expression.expression);
  }
  return undefined;
}
