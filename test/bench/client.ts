/**
 * How many verifications a second the TypeScript client makes, and how long its callers wait, beside the client that
 * grpc-js generates, on the same service in the same run: `npm run bench:client [-- --rounds N --seconds N]`. Each round
 * measures everything once, every other one in reverse, so that a machine whose speed drifts is slow for both alike.
 * Prints a table; nothing is asserted.
 */
import { Metadata } from '@grpc/grpc-js';
import { parseArgs } from 'node:util';

import { openClient } from '../../src/client/client.js';
import type { KeyServiceClient } from '../../src/gen/keyreeve/v1/key_service.js';
import { type VerifyKeyResponse } from '../../src/gen/keyreeve/v1/key_service.js';
import { Decision } from '../../src/gen/keyreeve/v1/verification.js';
import { call } from '../support/call.js';
import { startService } from '../support/service.js';
import { openClient as openStock } from './grpc-target.js';
import { createKey, toVerifyRequest } from './keys.js';
import { atLeast, atMost, median, ratiosOf, toMsText, toRatioText } from './measured.js';
import { describeMachine, quantile, toTable } from './report.js';

const KEYS = 100;
const CALLERS = [1, 16, 128];
const DEADLINE_MS = 3000;

/** One client under so many callers; a figure of each round. */
interface Arm {
  readonly client: string;
  readonly callers: number;
  /** @throws Error unless the key is VALID */
  readonly verify: (token: string) => Promise<void>;
  readonly perSecond: number[];
  readonly p50: number[];
  readonly p99: number[];
}

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, seconds: { type: 'string', default: '2' } },
});
const rounds = Math.ceil(parsePositive('rounds', options.rounds));
const seconds = parsePositive('seconds', options.seconds);
const conditions = `${new Date().toISOString()}, ${describeMachine()}`;

await using service = await startService();
const stock = openStock(service.address);
await using client = openClient({ address: service.address, verifyTimeoutMs: DEADLINE_MS });
const tokens: string[] = [];
for (let at = 0; at < KEYS; at += 1) tokens.push((await createKey(service.keys, 'acme')).token);

const arms = CALLERS.flatMap((callers) => [
  newArm('grpc-js', callers, (token) => verifyByStock(stock, token)),
  newArm('keyreeve/client', callers, async (token) => {
    const verification = await client.verify({ credential: token });
    if (!verification.allowed) throw new Error(`a key is ${verification.reason}`);
  }),
]);
for (let round = 0; round <= rounds; round += 1) {
  console.error(round === 0 ? 'warming up' : `round ${round} of ${rounds}`);
  for (const arm of round % 2 === 0 ? arms : arms.toReversed()) {
    const { perSecond, ms } = await load(arm);
    if (round === 0) continue;
    arm.perSecond.push(perSecond);
    arm.p50.push(quantile(ms, 0.5));
    arm.p99.push(quantile(ms, 0.99));
  }
}
stock.close();

console.log(`npm run bench:client -- --rounds ${rounds} --seconds ${seconds}`);
console.log(`${conditions}\n`);
console.log(
  toTable(
    ['callers', 'client', 'a second', 'p50 ms', 'p99 ms', 'times as many as grpc-js', 'its p50'],
    arms.map(toRow),
  ),
);
console.log(`\nThe median of ${rounds} rounds; ratios are those of a round (least–greatest).\n`);
const goals = [
  atLeast(
    'verifications a second with 128 callers, of those of grpc-js',
    4,
    ratioOf(128, ({ perSecond }) => perSecond),
  ),
  atMost(
    'p50 with one caller, of that of grpc-js',
    1,
    ratioOf(1, ({ p50 }) => p50),
  ),
];
for (const { what, goal, reached, met } of goals)
  console.log(`${met ? 'met' : 'MISSED'}: ${what}: ${goal}: ${reached}`);

function newArm(name: string, callers: number, verify: Arm['verify']): Arm {
  return { client: name, callers, verify, perSecond: [], p50: [], p99: [] };
}

function toRow(arm: Arm): string[] {
  const { client: name, callers, perSecond, p50, p99 } = arm;
  const [beside] = arms.filter((one) => one.callers === callers);
  const isStock = beside === undefined || beside === arm;
  return [
    `${callers}`,
    name,
    median(perSecond).toFixed(0),
    toMsText(p50),
    toMsText(p99),
    isStock ? '' : toRatioText(ratiosOf(perSecond, beside.perSecond)),
    isStock ? '' : toRatioText(ratiosOf(p50, beside.p50)),
  ];
}

function ratioOf(callers: number, figure: (arm: Arm) => readonly number[]): number[] {
  const [theirs, ours] = arms.filter((arm) => arm.callers === callers);
  return theirs && ours ? ratiosOf(figure(ours), figure(theirs)) : [];
}

/** @throws Error if a verification fails */
async function load({ callers, verify }: Arm): Promise<{ perSecond: number; ms: number[] }> {
  const beginMs = performance.now();
  const endMs = beginMs + seconds * 1000;
  const ms: number[] = [];
  async function caller(first: number): Promise<void> {
    for (let at = first, nowMs = beginMs; nowMs < endMs; at += 1) {
      const askedMs = nowMs;
      await verify(tokens[at % KEYS] ?? '');
      nowMs = performance.now();
      ms.push(nowMs - askedMs);
    }
  }
  await Promise.all(Array.from({ length: callers }, (_, at) => caller(at)));
  return { perSecond: (ms.length * 1000) / (performance.now() - beginMs), ms };
}

async function verifyByStock(keys: KeyServiceClient, token: string): Promise<void> {
  const { decision } = await call<VerifyKeyResponse>((done) =>
    keys.verifyKey(toVerifyRequest(token), new Metadata(), { deadline: Date.now() + DEADLINE_MS }, done),
  );
  if (decision !== Decision.VALID) throw new Error(`a key is ${Decision[decision]}`);
}

function parsePositive(option: string, value: string): number {
  const number = Number(value);
  if (number > 0 && Number.isFinite(number)) return number;
  throw new Error(`--${option}: a number greater than 0`);
}
