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

export const noise: Scenario = {
  name: 'noise',
  what: 'good callers at half the peak, without noise and with 90 % of it',
  measure,
};

/** Of the good callers, one figure a round. */
class Waits {
  readonly p50: number[] = [];
  readonly p99: number[] = [];

  add(ms: readonly number[], counts: boolean): void {
    if (!counts) return;
    this.p50.push(quantile(ms, 0.5));
    this.p99.push(quantile(ms, 0.99));
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
  const paces: number[] = [];
  const unanswered: number[] = [];

  await inRounds(bench, 'noise', [
    async (counts) => {
      const peak = await client.keepBusy(IN_FLIGHT, PEAK_CALLS, good);
      expectValid(peak, 'at the peak');
      const pace = (PEAK_CALLS / peak.seconds) * LOAD_SHARE;
      const calls = Math.ceil(pace * bench.seconds);
      if (counts) paces.push(pace);

      const quiet = await client.keepPace(pace, calls, good);
      expectValid(quiet, 'without noise');
      alone.add([...quiet.ms], counts);

      const fewer = await client.keepPace(pace / GOOD_EVERY, Math.ceil(calls / GOOD_EVERY), good);
      expectValid(fewer, 'without noise, a tenth of the calls');
      few.add([...fewer.ms], counts);

      const bad = Array.from({ length: calls }, (_, call) =>
        verifyFrame(call % 2 === 0 ? malformedToken() : newToken()),
      );
      const mixed: Messages = (call) => (isGood(call) ? good(call / GOOD_EVERY) : (bad[call] ?? Buffer.alloc(0)));
      const loud = await client.keepPace(pace, calls, mixed);
      noisy.add(goodMs(loud), counts);
      if (counts) unanswered.push(loud.decisions.filter((decision) => decision < 0).length);
    },
  ]);

  const row = (what: string, waits: Waits) => [
    what,
    toMsText(waits.p50),
    toMsText(waits.p99),
    toRatioText(ratiosOf(waits.p99, alone.p99)),
  ];
  const refused = unanswered.reduce((sum, one) => sum + one, 0);
  return {
    title: 'Noise',
    text:
      `At half of the round’s own peak, ${toShort(median(paces))} calls a second at even intervals over ${KEYS} keys in ` +
      'memory. Of the noise one half is malformed, the other well-formed tokens of no key, each of which is new. A time ' +
      'counts from the moment at which the call was due. ' +
      `Of all calls with noise ${refused === 0 ? 'none' : String(refused)} ended without a decision.`,
    head: ['good callers’ VerifyKey', 'p50 ms', 'p99 ms', 'p99 beside that without noise'],
    rows: [
      row('without noise', alone),
      row('without noise, a tenth of the calls', few),
      row('one call in ten, nine of noise', noisy),
    ],
    goals: [atMost('good callers’ p99 with 90 % noise beside that without', 1.5, ratiosOf(noisy.p99, alone.p99))],
    bars: [],
  };
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
