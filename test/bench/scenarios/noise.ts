/** Whether those who present a key notice that nine of ten calls present none. */
import { Decision } from '../../../src/gen/keyreeve/v1/verification.js';
import { startService } from '../../support/service.js';
import { type Bench, inRounds, type Scenario } from '../bench.js';
import { VERIFY_KEY } from '../grpc-target.js';
import { createKey, malformedToken, newToken, verifyFrame } from '../keys.js';
import { atMost, median, ratiosOf, type Section, toMsText, toRatioText, toShort } from '../measured.js';
import { quantile } from '../report.js';
import { type Answers, expectValid, type Messages, WireClient } from '../wire.js';
import { IN_FLIGHT } from './cold.js';

const KEYS = 500;
const GOOD_EVERY = 10;
const LOAD_SHARE = 0.5;
const PEAK_CALLS = 20_000;
/** Short, so that what holds the machine up meets all of the loads alike. */
const TURN_SECONDS = 0.5;
/** A p99 of good callers, who are a tenth of all, takes longer than other loads. */
const LOAD_LASTS = 3;

export const noise: Scenario = {
  name: 'noise',
  what: 'good callers at half the peak, without noise and with 90 % of it',
  measure,
};

/** Of the good callers under one of the loads: of each round what its turns come to at the median, and all turns at once. */
class Waits {
  readonly p50: number[] = [];
  readonly p99: number[] = [];
  readonly p99OfAll: number[] = [];
  #turns: number[][] = [];

  addTurn(ms: readonly number[]): void {
    this.#turns.push([...ms]);
  }

  endRound(counts: boolean): void {
    const turns = this.#turns;
    this.#turns = [];
    if (!counts) return;
    this.p50.push(median(turns.map((ms) => quantile(ms, 0.5))));
    this.p99.push(median(turns.map((ms) => quantile(ms, 0.99))));
    this.p99OfAll.push(quantile(turns.flat(), 0.99));
  }
}

async function measure(bench: Bench): Promise<Section> {
  await using service = await startService();
  await bench.cores.pin(service.pid, 'server');
  bench.say('noise: making keys');
  const frames: Buffer[] = [];
  for (let at = 0; at < KEYS; at += 1) frames.push(verifyFrame((await createKey(service.keys, 'acme')).token));
  using client = await WireClient.open({ address: service.address, path: VERIFY_KEY });
  const good: Messages = (call) => frames[call % KEYS] ?? Buffer.alloc(0);
  const [alone, few, noisy] = [new Waits(), new Waits(), new Waits()];
  const turns = Math.max(2, Math.ceil((bench.seconds * LOAD_LASTS) / TURN_SECONDS));
  const paces: number[] = [];
  let undecided = 0;

  const askQuietly = async (waits: Waits, pace: number) => {
    const quiet = await client.keepPace(pace, Math.ceil(pace * TURN_SECONDS), good);
    expectValid(quiet, 'without noise');
    waits.addTurn([...quiet.ms]);
  };
  const askAmidNoise = async (pace: number, bad: readonly Buffer[]) => {
    const mixed: Messages = (call) => (isGood(call) ? good(call / GOOD_EVERY) : (bad[call] ?? Buffer.alloc(0)));
    const loud = await client.keepPace(pace, bad.length, mixed);
    noisy.addTurn(goodMs(loud));
    undecided += loud.decisions.filter((decision) => decision < 0).length;
  };

  await inRounds(bench, 'noise', [
    async (counts) => {
      const peak = await client.keepBusy(IN_FLIGHT, PEAK_CALLS, good);
      expectValid(peak, 'at the peak');
      const pace = (PEAK_CALLS / peak.seconds) * LOAD_SHARE;
      if (counts) paces.push(pace);
      // Made before the turns, or the client would pay for it in some of them.
      const bad = Array.from({ length: turns }, () => makeNoise(Math.ceil(pace * TURN_SECONDS)));
      for (const [turn, noise] of bad.entries()) {
        const loads = [
          () => askQuietly(alone, pace),
          () => askQuietly(few, pace / GOOD_EVERY),
          () => askAmidNoise(pace, noise),
        ];
        for (const ask of turn % 2 === 0 ? loads : loads.toReversed()) await ask();
      }
      for (const waits of [alone, few, noisy]) waits.endRound(counts);
    },
  ]);

  const row = (what: string, waits: Waits) => [
    what,
    toMsText(waits.p50),
    toMsText(waits.p99),
    toRatioText(ratiosOf(waits.p99, alone.p99)),
    toMsText(waits.p99OfAll),
    toRatioText(ratiosOf(waits.p99OfAll, alone.p99OfAll)),
  ];
  return {
    title: 'Noise',
    text:
      `At half of the round’s own peak, ${toShort(median(paces))} calls a second at even intervals over ${KEYS} keys in ` +
      'memory. Of the noise one half is malformed, the other well-formed tokens of no key, each of which is new. A time ' +
      `counts from the moment at which the call was due. The loads take ${turns} turns of ${TURN_SECONDS} s each; beside what a turn comes to at the median stands the p99 of all turns together. ` +
      `Of all calls with noise ${undecided === 0 ? 'none' : String(undecided)} ended without a decision.`,
    head: [
      'good callers’ VerifyKey',
      'p50 ms',
      'p99 ms',
      'of that without noise',
      'p99 of all turns ms',
      'of that without noise',
    ],
    rows: [
      row('without noise', alone),
      row('without noise, a tenth of the calls', few),
      row('one call in ten, nine of noise', noisy),
    ],
    goals: [atMost('good callers’ p99 with 90 % noise beside that without', 1.5, ratiosOf(noisy.p99, alone.p99))],
    bars: [],
  };
}

function makeNoise(calls: number): Buffer[] {
  return Array.from({ length: calls }, (_, call) => verifyFrame(call % 2 === 0 ? malformedToken() : newToken()));
}

function isGood(call: number): boolean {
  return call % GOOD_EVERY === 0;
}

/** @throws Error unless all of the good callers' answers were VALID */
function goodMs({ decisions, ms }: Answers): number[] {
  const times: number[] = [];
  for (const [call, decision] of decisions.entries()) {
    if (!isGood(call)) continue;
    if (decision !== (Decision.VALID as number)) throw new Error('a good caller was not answered VALID');
    times.push(ms[call] ?? Number.NaN);
  }
  return times;
}
