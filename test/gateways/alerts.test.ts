/** The alerts by the real promtool: that it takes them, that each fires and when it must not, does not. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';

import { scrape } from '../support/metrics.js';
import { getPromtool } from '../support/server-programs.js';
import { startService } from '../support/service.js';

const file = (name: string) => fileURLToPath(new URL(`../../deploy/prometheus/${name}`, import.meta.url));
const RULES = file('keyreeve.rules.yaml');
const RULE_TESTS = file('keyreeve.rules.test.yaml');

let promtool: string;
beforeAll(async () => {
  promtool = await getPromtool();
});

async function run(args: readonly string[], input = ''): Promise<{ code: number; output: string }> {
  const child = execFile(promtool, args);
  const { stdin, stdout, stderr } = child;
  if (!stdin || !stdout || !stderr) throw new Error('promtool has no input or output');
  stdin.end(input);
  const [told, complained, [code]] = await Promise.all([
    text(stdout),
    text(stderr),
    once(child, 'close') as Promise<[number]>,
  ]);
  return { code, output: told + complained };
}

test('promtool takes the rules', async () => {
  const { code, output } = await run(['check', 'rules', RULES]);
  expect(output).toMatch(/SUCCESS: \d+ rules found/);
  expect(code).toBe(0);
});

test('each alert fires on what it is for, and on nothing else', async () => {
  const { code, output } = await run(['test', 'rules', RULE_TESTS]);
  expect(output).toContain('SUCCESS');
  expect(code).toBe(0);
});

test('of every alert it is tested that it fires, and that it does not', async () => {
  const { groups } = parse(await readFile(RULES, 'utf8')) as { groups: { rules: { alert: string }[] }[] };
  const { tests } = parse(await readFile(RULE_TESTS, 'utf8')) as {
    tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
  };
  const tried = tests.flatMap(({ alert_rule_test: tries }) => tries);
  for (const { alert } of groups.flatMap(({ rules }) => rules)) {
    const fires = tried.filter(({ alertname }) => alertname === alert).map((one) => one.exp_alerts.length > 0);
    expect([alert, fires.includes(true), fires.includes(false)]).toEqual([alert, true, true]);
  }
});

test('promtool finds nothing to blame in the names, units and help of the metrics', async () => {
  await using service = await startService({ KEYREEVE_HTTP_LISTEN: '127.0.0.1:0' });
  const { text: metrics } = await scrape(service.httpAddress);
  const own = metrics.split('\n').filter((line) => /^(# \w+ )?keyreeve_/.test(line));
  expect(own.length).toBeGreaterThan(100);
  expect(await run(['check', 'metrics'], `${own.join('\n')}\n`)).toEqual({ code: 0, output: '' });
});
