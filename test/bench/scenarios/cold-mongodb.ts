/** Keys that a service on MongoDB has not seen since it was started, beside one read of MongoDB for each. */
import { VerifyKeyResponse } from '../../../src/gen/keyreeve/v1/key_service.js';
import { startService } from '../../support/service.js';
import { type Bench, inRounds, type Scenario } from '../bench.js';
import { VERIFY_KEY, verifyOne } from '../grpc-target.js';
import { seedKeys, verifyFrame } from '../keys.js';
import { atLeast, median, ratiosOf, type Section, toRatioText, toShort } from '../measured.js';
import { Opened } from '../opened.js';
import { type Program, startProgram } from '../programs.js';
import { inDatabase, startReplicaSet } from '../replica-set.js';
import { expectValid, WireClient } from '../wire.js';
import { IN_FLIGHT } from './cold.js';

const KEYS = 60_000;
/** First sights of a round that count for nothing: the program is new too. */
const WARM_UP_KEYS = 10_000;
/** Times the bench's seconds: last uses are written every 5 s, and belong to it. */
const FIRST_SIGHTS_LAST = 5;
const WARM_UP_CALLS = 1000;
const CONNECTIONS = 4;
const LEVELS = ['linearizable', 'majority'] as const;

export const coldMongodb: Scenario = {
  name: 'cold-mongodb',
  what: 'on MongoDB: keys that no one has asked for since the start, beside one read for each',
  measure,
};

async function measure(bench: Bench): Promise<Section> {
  // Three members, a server and its load on two cores: each takes what there is.
  await bench.cores.pin(process.pid, 'anywhere');
  await using set = await startReplicaSet();
  const uri = inDatabase(set.uri, 'cold');
  bench.say('cold-mongodb: making keys');
  const tokens = await seedKeys({ engine: 'mongodb', uri }, KEYS);
  const frames = tokens.map(verifyFrame);
  const hot: number[] = [];
  const first: number[] = [];
  const reads = LEVELS.map((): number[] => []);

  await using stack = new Opened();
  const answer = await answerOf(uri, tokens[0] ?? '');
  const readers: Program<{ port: number }>[] = [];
  for (const level of LEVELS) {
    const reader = await startProgram<{ port: number }>(
      bench.cores,
      'anywhere',
      'servers/one-read.mjs',
      [level, answer],
      { MONGODB_URI: uri },
    );
    readers.push(stack.use(reader));
  }

  await inRounds(bench, 'cold-mongodb', [
    async (counts) => {
      await using service = await startService({ KEYREEVE_MONGODB_URI: uri });
      await using clients = await openClients(service.address);
      await verifyOne(service.keys, tokens[0] ?? '');
      const begun = await run(clients.all, frames, 0, WARM_UP_CALLS, 0);
      const one = await run(clients.all, frames, 0, Math.ceil(begun * bench.seconds), 0);
      const warm = await run(clients.all, frames, 0, WARM_UP_KEYS);
      const seen = await run(clients.all, frames, WARM_UP_KEYS, callsFor(bench.seconds * FIRST_SIGHTS_LAST, warm));
      if (!counts) return;
      hot.push(one);
      first.push(seen);
    },
    ...readers.map(({ told }, at) => async (counts: boolean) => {
      await using clients = await openClients(`127.0.0.1:${told.port}`);
      const warm = await run(clients.all, frames, 0, WARM_UP_KEYS);
      const read = await run(clients.all, frames, WARM_UP_KEYS, callsFor(bench.seconds, warm));
      if (counts) reads[at]?.push(read);
    }),
  ]);
  await bench.cores.pin(process.pid, 'load');
  return toSection(hot, first, reads);
}

/** As gateways that have a connection each. */
async function openClients(address: string): Promise<AsyncDisposable & { readonly all: readonly WireClient[] }> {
  const stack = new Opened();
  const all: WireClient[] = [];
  while (all.length < CONNECTIONS) {
    const client = await WireClient.open({ address, path: VERIFY_KEY, connections: 1 });
    all.push(stack.adopt(client, () => client[Symbol.dispose]()));
  }
  return { all, [Symbol.asyncDispose]: () => stack[Symbol.asyncDispose]() };
}

/** Answers calls a second. The clients take turns with the keys. */
async function run(clients: readonly WireClient[], frames: readonly Buffer[], from: number, calls: number, step = 1) {
  const each = Math.ceil(calls / clients.length);
  const answers = await Promise.all(
    clients.map((client, at) =>
      client.keepBusy(IN_FLIGHT, each, (call) => {
        return frames[(from + (call * clients.length + at) * step) % frames.length] ?? Buffer.alloc(0);
      }),
    ),
  );
  for (const one of answers) expectValid(one, 'cold on MongoDB');
  return (each * clients.length) / Math.max(...answers.map(({ seconds }) => seconds));
}

/** As many keys as are left, at the most. */
function callsFor(seconds: number, perSecond: number): number {
  return Math.min(KEYS - WARM_UP_KEYS, Math.ceil(perSecond * seconds));
}

/** In base64. */
async function answerOf(uri: string, token: string): Promise<string> {
  await using service = await startService({ KEYREEVE_MONGODB_URI: uri });
  const answer = await verifyOne(service.keys, token);
  return Buffer.from(VerifyKeyResponse.encode(answer).finish()).toString('base64');
}

function toSection(hot: number[], first: number[], reads: readonly number[][]): Section {
  const [linearizable = [], majority = []] = reads;
  const row = (what: string, figures: number[]) => [
    what,
    toShort(median(figures)),
    toRatioText(ratiosOf(figures, linearizable)),
  ];
  return {
    title: 'Keys not in memory: MongoDB',
    text:
      'A replica set of three members on the same machine, no process of this table pinned to a core, ' +
      `${CONNECTIONS * IN_FLIGHT} calls in flight on ${CONNECTIONS} connections, by clients of the bench. Of ${KEYS.toLocaleString('en-US')} keys each is asked for once after a start of the service. Beside it ` +
      'a bare grpc-js server that reads each key by its digest, and nothing else.',
    head: ['VerifyKey', 'calls a second', 'of a linearizable read’s for each'],
    rows: [
      row('each key for the first time', first),
      row('one linearizable read for each, bare', linearizable),
      row('one majority read for each, bare', majority),
      row('one key', hot),
    ],
    goals: [
      atLeast('VerifyKey cold on MongoDB, beside one read for each key', 5, ratiosOf(first, linearizable), ' times'),
    ],
    bars: [{ what: 'VerifyKey, cold on MongoDB', perSecond: median(first), own: true }],
  };
}
