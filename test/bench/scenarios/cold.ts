/** Keys that a service on SQLite has not seen since it was started, beside one key and beside many that it knows. */
import { join } from 'node:path';

import { startService } from '../../support/service.js';
import { type Bench, inRounds, type Scenario } from '../bench.js';
import { VERIFY_KEY, verifyOne } from '../grpc-target.js';
import { seedKeys, verifyFrame } from '../keys.js';
import { atLeast, median, ratiosOf, type Section, toRatioText, toShort } from '../measured.js';
import { expectValid, WireClient } from '../wire.js';

const KEYS = 100_000;
/** First sights of a round that count for nothing: the program is new too. */
const WARM_UP_KEYS = 20_000;
const WARM_UP_CALLS = 20_000;
export const IN_FLIGHT = 64;

export const cold: Scenario = {
  name: 'cold',
  what: `on SQLite: keys that no one has asked for since the start, and ${KEYS.toLocaleString('en-US')} in memory`,
  measure,
};

async function measure(bench: Bench): Promise<Section> {
  const dataDir = join(bench.folder, 'cold');
  bench.say('cold: making keys');
  const tokens = await seedKeys({ engine: 'sqlite', dataDir }, KEYS);
  const frames = tokens.map(verifyFrame);
  const frameOf = (at: number) => frames[at % KEYS] ?? Buffer.alloc(0);
  const one: number[] = [];
  const first: number[] = [];
  const known: number[] = [];

  await inRounds(bench, 'cold', [
    async (counts) => {
      await using service = await startService({ KEYREEVE_DATA_DIR: dataDir });
      await bench.cores.pin(service.pid, 'server');
      await verifyOne(service.keys, tokens[0] ?? '');
      using client = await WireClient.open({ address: service.address, path: VERIFY_KEY });
      const run = async (calls: number, from: number, step: number) => {
        const answers = await client.keepBusy(IN_FLIGHT, calls, (call) => frameOf(from + call * step));
        expectValid(answers, 'cold');
        return calls / answers.seconds;
      };
      await run(WARM_UP_CALLS, 0, 0);
      const hot = await run(WARM_UP_CALLS, 0, 0);
      await run(WARM_UP_KEYS, 0, 1);
      const seen = await run(KEYS - WARM_UP_KEYS, WARM_UP_KEYS, 1);
      // Another order than that in which they came.
      const again = await run(KEYS - WARM_UP_KEYS, 0, 7919);
      if (!counts) return;
      one.push(hot);
      first.push(seen);
      known.push(again);
    },
  ]);
  return toSection(one, first, known);
}

function toSection(hot: number[], first: number[], known: number[]): Section {
  const row = (what: string, figures: number[]) => [
    what,
    toShort(median(figures)),
    toRatioText(ratiosOf(figures, hot)),
  ];
  return {
    title: 'Keys not in memory, and many that are: SQLite',
    text:
      `A store of ${KEYS.toLocaleString('en-US')} keys. Each round starts the service anew and asks for one key again and ` +
      'again, then for every key once, then for all of them again in another order, 64 calls in flight, by a client of ' +
      'the bench.',
    head: ['VerifyKey', 'calls a second', 'of one key’s'],
    rows: [
      row('one key', hot),
      row('each key for the first time', first),
      row(`${KEYS.toLocaleString('en-US')} keys in memory`, known),
    ],
    goals: [atLeast('VerifyKey cold on SQLite: calls for each hot one', 0.75, ratiosOf(first, hot))],
    bars: [{ what: 'VerifyKey, cold on SQLite', perSecond: median(first), own: true }],
  };
}
