/** Keys that are in memory, one a call and in batches, beside the bare transport and beside what else one could run. */
import { VerifyKeyResponse } from '../../../src/gen/keyreeve/v1/key_service.js';
import { startService } from '../../support/service.js';
import type { Bench, Scenario } from '../bench.js';
import { type GrpcTarget, openClient, toBatchTarget, toUnaryTarget, verifyOne } from '../grpc-target.js';
import type { LoadTarget } from '../h2load.js';
import { createKey } from '../keys.js';
import { atLeast, atMost, median, ratiosOf, type Section, toMsText, toRatioText, toShort } from '../measured.js';
import { Opened } from '../opened.js';
import { installPeers, startProgram, startRedis } from '../programs.js';
import { quantile } from '../report.js';
import { peaksByTurns, type Running } from '../turns.js';
import { WireClient } from '../wire.js';

const BATCHES = [1, 10, 100] as const;
const PACED_SHARE = 0.7;
/** Times the bench's seconds, of each: after some of load servers on Node hardly grow faster any more. */
const WARM_UP_LASTS = 3;
/** Times the bench's seconds, of each, beside the echo. */
const PEAK_LASTS = 2;
/** With one in flight, of each: the machine's speed drifts within a second. */
const SINGLE_TURNS = 12;
/** Of a turn, times the bench's seconds. */
const SINGLE_LASTS = 1 / 16;

export const hot: Scenario = {
  name: 'hot',
  what: 'keys in memory: unary, in batches, beside the bare transport, better-auth, and Fastify with Redis',
  measure,
};

interface Compared {
  readonly what: string;
  readonly own: boolean;
  /** Asked by each call. */
  readonly keys: number;
  /** Starts its server, which the stack ends. */
  readonly open: (stack: Opened) => Promise<Target>;
}

interface Target extends Running {
  /** Absent: not measured at a share of its peak. */
  readonly grpc?: GrpcTarget;
  readonly probe: () => Promise<unknown>;
}

/** One of each round. */
class Figures {
  readonly perSecond: number[] = [];
  /** Calls for each call of the echo, which was asked at the same time. */
  readonly besideEcho: number[] = [];
  readonly oneP50: number[] = [];
  readonly oneP99: number[] = [];
  /** In terms of the echo's, turn by turn. */
  readonly oneP99BesideEcho: number[] = [];
  readonly pacedP50: number[] = [];
  readonly pacedP99: number[] = [];

  /** Of those that were measured beside each of the others in one round. */
  addMedians(ofRound: Figures): void {
    this.perSecond.push(median(ofRound.perSecond));
    this.besideEcho.push(median(ofRound.besideEcho));
    this.oneP50.push(median(ofRound.oneP50));
    this.oneP99.push(median(ofRound.oneP99));
    this.oneP99BesideEcho.push(median(ofRound.oneP99BesideEcho));
    this.pacedP50.push(median(ofRound.pacedP50));
    this.pacedP99.push(median(ofRound.pacedP99));
  }
}

async function measure(bench: Bench): Promise<Section> {
  await installPeers((line) => bench.say(line));
  await using stack = new Opened();
  const { echo, others } = await toCompare(bench, stack);
  const figures = new Map<Compared, Figures>([echo, ...others].map((one) => [one, new Figures()]));
  const itsOf = (one: Compared): Figures => figures.get(one) ?? new Figures();
  for (let round = 1; round <= bench.rounds; round += 1) {
    bench.say(`hot: round ${round} of ${bench.rounds}`);
    const ofEcho = new Figures();
    for (const one of round % 2 === 0 ? others : others.toReversed()) {
      // Both started anew: a process that runs for longer is faster, and some are faster than others for all their lives.
      await using servers = new Opened();
      const pair: Pair = [
        { target: await one.open(servers), its: itsOf(one) },
        { target: await echo.open(servers), its: ofEcho },
      ];
      await warmUp(bench, pair);
      await measurePeaks(bench, pair);
      await measureOneInFlight(bench, pair);
      for (const measured of pair) await measureAtPace(bench, measured);
    }
    itsOf(echo).addMedians(ofEcho);
  }
  return toSection(figures);
}

interface Measured {
  readonly target: Target;
  readonly its: Figures;
}

/** The second one is the echo. */
type Pair = readonly [Measured, Measured];

/** Until both are compiled and their heaps have grown. */
async function warmUp(bench: Bench, pair: Pair): Promise<void> {
  for (const { target } of pair) await target.probe();
  await peaksOf(bench, pair, WARM_UP_LASTS);
}

async function measurePeaks(bench: Bench, pair: Pair): Promise<void> {
  const peaks = await peaksOf(bench, pair, PEAK_LASTS);
  for (const [at, { its }] of pair.entries()) {
    its.perSecond.push(peaks[at] ?? Number.NaN);
    its.besideEcho.push((peaks[at] ?? Number.NaN) / peaks[1]);
  }
}

async function peaksOf({ h2load, seconds }: Bench, pair: Pair, lasts: number): Promise<[number, number]> {
  const peaks = await peaksByTurns(h2load, [pair[0].target, pair[1].target], seconds * lasts);
  // Answered once what was cut off at the end has been worked through, which takes the slowest of them long.
  for (const { target } of pair) await target.probe();
  return peaks;
}

async function measureOneInFlight({ h2load, seconds }: Bench, pair: Pair): Promise<void> {
  const turns = pair.map(({ target, its }) => ({ target, its, p50: [] as number[], p99: [] as number[] }));
  for (let at = 0; at < SINGLE_TURNS; at += 1) {
    for (const { target, p50, p99 } of at % 2 === 0 ? turns : turns.toReversed()) {
      const { ms } = await h2load.oneInFlight(target.load, seconds * SINGLE_LASTS);
      p50.push(quantile(ms, 0.5));
      p99.push(quantile(ms, 0.99));
    }
  }
  const ofEcho = turns[1]?.p99 ?? [];
  for (const { its, p50, p99 } of turns) {
    its.oneP50.push(median(p50));
    its.oneP99.push(median(p99));
    its.oneP99BesideEcho.push(median(ratiosOf(p99, ofEcho)));
  }
}

async function measureAtPace({ seconds }: Bench, { target: { grpc }, its }: Measured): Promise<void> {
  if (!grpc) return;
  const pace = (its.perSecond.at(-1) ?? 0) * PACED_SHARE;
  await grpc.probe();
  using client = await WireClient.open(grpc.wire);
  const { decisions, ms } = await client.keepPace(pace, Math.ceil(pace * seconds), () => grpc.frame);
  if (decisions.includes(-1)) throw new Error('a call failed that had been answered before');
  its.pacedP50.push(quantile([...ms], 0.5));
  its.pacedP99.push(quantile([...ms], 0.99));
}

async function toCompare(
  { cores, folder }: Bench,
  stack: Opened,
): Promise<{ echo: Compared; others: readonly Compared[] }> {
  const { token, answer } = await askService();
  const redis = stack.use(await startRedis(folder));
  const echo = (what: string, codec: 'generated' | 'raw'): Compared => {
    const open = async (server: Opened) => {
      const program = await startProgram<{ port: number }>(cores, 'server', 'servers/echo.mjs', [codec, answer]);
      const address = `127.0.0.1:${server.use(program).told.port}`;
      const client = server.adopt(openClient(address), (one) => one.close());
      return ofGrpc(program.pid, await toUnaryTarget(client, address, token));
    };
    return { what, own: false, keys: 1, open };
  };
  const own = (what: string, keys: number, toTarget: (service: Service, tokens: string[]) => Promise<GrpcTarget>) => {
    const open = async (server: Opened) => {
      const service = server.use(await startService());
      await cores.pin(service.pid, 'server');
      const tokens: string[] = [];
      while (tokens.length < keys) tokens.push((await createKey(service.keys, 'acme')).token);
      return ofGrpc(service.pid, await toTarget(service, tokens));
    };
    return { what, own: true, keys, open };
  };
  const peer = (what: string, path: string, args: readonly string[]): Compared => {
    const open = async (server: Opened) => {
      const program = server.use(await startProgram<{ port: number; key: string }>(cores, 'server', path, args));
      const { port, key } = program.told;
      return toPeer(what, program.pid, `http://127.0.0.1:${port}/`, key);
    };
    return { what, own: false, keys: 1, open };
  };
  const others = [
    echo(RAW_ECHO, 'raw'),
    own(UNARY, 1, ({ keys, address }, [token = '']) => toUnaryTarget(keys, address, token)),
    ...BATCHES.map((count) =>
      own(`BatchVerifyKeys, ${count}`, count, ({ keys, address }, tokens) => toBatchTarget(keys, address, tokens)),
    ),
    peer(FASTIFY, 'peers/fastify-redis.mjs', [`${redis.port}`]),
    peer(BETTER_AUTH_MEMORY, 'peers/better-auth.mjs', ['memory', folder]),
    peer(BETTER_AUTH_SQLITE, 'peers/better-auth.mjs', ['sqlite', folder]),
  ];
  return { echo: echo(ECHO, 'generated'), others };
}

type Service = Awaited<ReturnType<typeof startService>>;

/** What the echo is asked and answers, in base64. */
async function askService(): Promise<{ token: string; answer: string }> {
  await using service = await startService();
  const { token } = await createKey(service.keys, 'acme');
  const answer = VerifyKeyResponse.encode(await verifyOne(service.keys, token)).finish();
  return { token, answer: Buffer.from(answer).toString('base64') };
}

function ofGrpc(pid: number, grpc: GrpcTarget): Target {
  return { pid, load: grpc.load, grpc, probe: grpc.probe };
}

const ECHO = 'bare grpc-js echo, generated messages';
const RAW_ECHO = 'bare grpc-js echo, bytes';
const UNARY = 'VerifyKey';
const FASTIFY = 'Fastify with Redis';
const BETTER_AUTH_MEMORY = 'better-auth, memory';
const BETTER_AUTH_SQLITE = 'better-auth, SQLite';

async function toPeer(what: string, pid: number, url: string, key: string): Promise<Target> {
  const ask = async () => {
    const response = await fetch(url, { headers: { 'x-api-key': key } });
    const body = Buffer.from(await response.arrayBuffer());
    const { valid } = JSON.parse(body.toString()) as { valid: boolean };
    if (!valid) throw new Error(`${what}: the key is not valid`);
    return body.length;
  };
  // The first answer lacks the time of the last request.
  await ask();
  const load: LoadTarget = { url, headers: [`x-api-key: ${key}`], answerBytes: await ask() };
  return { pid, load, probe: ask };
}

function toSection(figures: ReadonlyMap<Compared, Figures>): Section {
  const all = [...figures].map(([one, its]) => ({ ...one, its }));
  /** Keys for each call of the echo. */
  const keysOf = (what: string): readonly number[] => {
    const found = all.find((one) => one.what === what);
    return found?.its.besideEcho.map((calls) => calls * found.keys) ?? [];
  };
  const unary = keysOf(UNARY);
  const batch = keysOf('BatchVerifyKeys, 100');
  const p99 = all.find(({ what }) => what === UNARY)?.its.oneP99BesideEcho ?? [];
  const rows = all.map(({ what, keys, its }) => [
    what,
    toShort(median(its.perSecond)),
    toShort(median(its.perSecond) * keys),
    toRatioText(keysOf(what)),
    toMsText(its.oneP50),
    toMsText(its.oneP99),
    its.pacedP50.length > 0 ? toMsText(its.pacedP50) : '',
    its.pacedP99.length > 0 ? toMsText(its.pacedP99) : '',
  ]);
  return {
    title: 'Keys in memory',
    text:
      'Calls a second come from h2load with 64 calls in flight: 8 connections of 8 streams for gRPC, 64 connections for ' +
      'HTTP/1.1. Each server is asked at the same time as the echo, and the two run by turns of 100 ms: what is told is ' +
      'what a server does while it runs. Times of one call in flight come from h2load too, by turns of the same ' +
      'two, one after the other; a round’s figure is the median of its turns. At 70 % of its own peak of the same round each ' +
      'server is asked at even intervals, and a time counts from the moment at which the call was due. Each round ' +
      'starts every server anew, and an echo of the same age beside it, and loads both until they are compiled.',
    head: [
      'what',
      'calls a second',
      'keys a second',
      'its keys for each call of the echo',
      'one in flight: p50 ms',
      'p99 ms',
      'at 70 %: p50 ms',
      'p99 ms',
    ],
    rows,
    goals: [
      atLeast('VerifyKey hot: calls for each call of the bare echo', 0.95, unary),
      atMost('VerifyKey hot, one in flight: p99 beside the echo’s', 1.2, p99),
      atLeast('batch of 100: keys for each call of the bare echo', 6, batch),
      atLeast('beside better-auth in memory', 5, ratiosOf(unary, keysOf(BETTER_AUTH_MEMORY)), ' times'),
      atLeast('beside better-auth on SQLite', 40, ratiosOf(unary, keysOf(BETTER_AUTH_SQLITE)), ' times'),
      atLeast('beside Fastify with Redis, by batch', 1, ratiosOf(batch, keysOf(FASTIFY)), ' times'),
    ],
    bars: all.map(({ what, keys, own, its }) => ({ what, perSecond: median(its.perSecond) * keys, own })),
  };
}
