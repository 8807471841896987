/** Keys that are in memory, one a call and in batches, beside the bare transport and beside what else one could run. */
import { VerifyKeyResponse } from '../../../src/gen/keyreeve/v1/key_service.js';
import { startService } from '../../support/service.js';
import { type Bench, inRounds, type Scenario } from '../bench.js';
import { type GrpcTarget, openClient, toBatchTarget, toUnaryTarget, verifyOne } from '../grpc-target.js';
import type { LoadTarget } from '../h2load.js';
import { createKey } from '../keys.js';
import { atLeast, atMost, mean, median, ratiosOf, type Section, toMsText, toRatioText, toShort } from '../measured.js';
import { Opened } from '../opened.js';
import { installPeers, startProgram, startRedis } from '../programs.js';
import { quantile } from '../report.js';
import { WireClient } from '../wire.js';

const BATCHES = [1, 10, 100] as const;
const PACED_SHARE = 0.7;
const SINGLE_SECONDS_SHARE = 0.5;
/** Times the bench's seconds: after eight to ten of load servers on Node stop growing faster. */
const WARM_UP_LASTS = 5;
/** Of each in a round, one after the other: the machine's speed drifts within seconds. */
const TURNS = 4;
/** Times the bench's seconds, before each turn: a server that was idle begins slowly again. */
const LEAD_IN_LASTS = 0.5;

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

interface Target {
  readonly load: LoadTarget;
  /** Absent: not measured at a share of its peak. */
  readonly grpc?: GrpcTarget;
  readonly probe: () => Promise<unknown>;
}

/** What it did when it was asked for as much as it can, and for one call after the other. */
interface Turn {
  readonly perSecond: number;
  /** Of each call. */
  readonly oneMs: readonly number[];
}

class Figures {
  // One of each turn.
  readonly perSecond: number[] = [];
  readonly oneP50: number[] = [];
  readonly oneP99: number[] = [];
  // One of each round.
  readonly pacedP50: number[] = [];
  readonly pacedP99: number[] = [];

  addTurn({ perSecond, oneMs }: Turn): void {
    this.perSecond.push(perSecond);
    this.oneP50.push(quantile(oneMs, 0.5));
    this.oneP99.push(quantile(oneMs, 0.99));
  }

  addPaced(ms: readonly number[]): void {
    this.pacedP50.push(quantile(ms, 0.5));
    this.pacedP99.push(quantile(ms, 0.99));
  }
}

async function measure(bench: Bench): Promise<Section> {
  await installPeers((line) => bench.say(line));
  await using stack = new Opened();
  const all = await toCompare(bench, stack);
  const figures = new Map<Compared, Figures>(all.map((one) => [one, new Figures()]));
  const round = async (counts: boolean) => {
    // With servers of its own: some processes are faster than others of the same program for as long as they live.
    await using servers = new Opened();
    const running: { target: Target; peaks: number[]; its: Figures | undefined }[] = [];
    for (const one of all) {
      const target = await one.open(servers);
      await warmUp(bench, target);
      running.push({ target, peaks: [], its: counts ? figures.get(one) : undefined });
    }
    for (let at = 0; at < TURNS; at += 1) {
      for (const { target, peaks, its } of at % 2 === 0 ? running : running.toReversed()) {
        const turn = await takeTurn(bench, target);
        peaks.push(turn.perSecond);
        its?.addTurn(turn);
      }
    }
    for (const { target, peaks, its } of running) {
      if (target.grpc) its?.addPaced(await atPace(bench, target.grpc, mean(peaks) * PACED_SHARE));
    }
  };
  await inRounds(bench, 'hot', [round]);
  return toSection(all, figures);
}

/** Until it is compiled and its heap has grown. */
async function warmUp({ h2load, seconds }: Bench, { load, probe }: Target): Promise<void> {
  await probe();
  await h2load.peak(load, seconds * WARM_UP_LASTS);
}

async function takeTurn({ h2load, seconds }: Bench, { load, probe }: Target): Promise<Turn> {
  await h2load.peak(load, seconds * LEAD_IN_LASTS);
  // Answered once what was cut off at the end has been worked through, which takes the slowest of them long.
  await probe();
  const { perSecond } = await h2load.peak(load, seconds / TURNS);
  await probe();
  const { ms } = await h2load.oneInFlight(load, (seconds * SINGLE_SECONDS_SHARE) / TURNS);
  return { perSecond, oneMs: ms };
}

async function atPace({ seconds }: Bench, grpc: GrpcTarget, pace: number): Promise<number[]> {
  await grpc.probe();
  using client = await WireClient.open(grpc.wire);
  const { decisions, ms } = await client.keepPace(pace, Math.ceil(pace * seconds), () => grpc.frame);
  if (decisions.includes(-1)) throw new Error('a call failed that had been answered before');
  return [...ms];
}

async function toCompare({ cores, folder }: Bench, stack: Opened): Promise<Compared[]> {
  const { token, answer } = await askService();
  const redis = stack.use(await startRedis(folder));
  const echo = (what: string, codec: 'generated' | 'raw'): Compared => {
    const open = async (server: Opened) => {
      const program = await startProgram<{ port: number }>(cores, 'server', 'servers/echo.mjs', [codec, answer]);
      const address = `127.0.0.1:${server.use(program).told.port}`;
      const client = server.adopt(openClient(address), (one) => one.close());
      return ofGrpc(await toUnaryTarget(client, address, token));
    };
    return { what, own: false, keys: 1, open };
  };
  const own = (what: string, keys: number, toTarget: (service: Service, tokens: string[]) => Promise<GrpcTarget>) => {
    const open = async (server: Opened) => {
      const service = server.use(await startService());
      await cores.pin(service.pid, 'server');
      const tokens: string[] = [];
      while (tokens.length < keys) tokens.push((await createKey(service.keys, 'acme')).token);
      return ofGrpc(await toTarget(service, tokens));
    };
    return { what, own: true, keys, open };
  };
  const peer = (what: string, path: string, args: readonly string[]): Compared => {
    const open = async (server: Opened) => {
      const { told } = server.use(await startProgram<{ port: number; key: string }>(cores, 'server', path, args));
      return toPeer(what, `http://127.0.0.1:${told.port}/`, told.key);
    };
    return { what, own: false, keys: 1, open };
  };
  return [
    echo(RAW_ECHO, 'raw'),
    echo(ECHO, 'generated'),
    own(UNARY, 1, ({ keys, address }, [token = '']) => toUnaryTarget(keys, address, token)),
    ...BATCHES.map((count) =>
      own(`BatchVerifyKeys, ${count}`, count, ({ keys, address }, tokens) => toBatchTarget(keys, address, tokens)),
    ),
    peer(FASTIFY, 'peers/fastify-redis.mjs', [`${redis.port}`]),
    peer(BETTER_AUTH_MEMORY, 'peers/better-auth.mjs', ['memory', folder]),
    peer(BETTER_AUTH_SQLITE, 'peers/better-auth.mjs', ['sqlite', folder]),
  ];
}

type Service = Awaited<ReturnType<typeof startService>>;

/** What the echo is asked and answers, in base64. */
async function askService(): Promise<{ token: string; answer: string }> {
  await using service = await startService();
  const { token } = await createKey(service.keys, 'acme');
  const answer = VerifyKeyResponse.encode(await verifyOne(service.keys, token)).finish();
  return { token, answer: Buffer.from(answer).toString('base64') };
}

function ofGrpc(grpc: GrpcTarget): Target {
  return { load: grpc.load, grpc, probe: grpc.probe };
}

const ECHO = 'bare grpc-js echo, generated messages';
const RAW_ECHO = 'bare grpc-js echo, bytes';
const UNARY = 'VerifyKey';
const FASTIFY = 'Fastify with Redis';
const BETTER_AUTH_MEMORY = 'better-auth, memory';
const BETTER_AUTH_SQLITE = 'better-auth, SQLite';

async function toPeer(what: string, url: string, key: string): Promise<Target> {
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
  return { load, probe: ask };
}

function toSection(all: readonly Compared[], figures: ReadonlyMap<Compared, Figures>): Section {
  const of = (what: string): Figures => {
    const found = all.find((one) => one.what === what);
    return (found && figures.get(found)) ?? new Figures();
  };
  const keysOf = (what: string, keys: number) => of(what).perSecond.map((calls) => calls * keys);
  const echo = of(ECHO);
  const unary = of(UNARY);
  const batch = keysOf('BatchVerifyKeys, 100', 100);
  const rows = all.map((one) => {
    const its = of(one.what);
    const keys = its.perSecond.map((calls) => calls * one.keys);
    return [
      one.what,
      toShort(median(its.perSecond)),
      toShort(median(keys)),
      toRatioText(ratiosOf(keys, echo.perSecond)),
      toMsText(its.oneP50),
      toMsText(its.oneP99),
      its.pacedP50.length > 0 ? toMsText(its.pacedP50) : '',
      its.pacedP99.length > 0 ? toMsText(its.pacedP99) : '',
    ];
  });
  return {
    title: 'Keys in memory',
    text:
      'Calls a second come from h2load with 64 calls in flight: 8 connections of 8 streams for gRPC, 64 connections for ' +
      'HTTP/1.1. So do the times of one call in flight. At 70 % of its own peak of the same round each server is asked ' +
      'at even intervals, and a time counts from the moment at which the call was due. Each round starts every server ' +
      `anew, and measures each in ${TURNS} turns, one after the other: figures, and ratios, are of turns.`,
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
      atLeast('VerifyKey hot: calls for each call of the bare echo', 0.95, ratiosOf(unary.perSecond, echo.perSecond)),
      atMost('VerifyKey hot, one in flight: p99 beside the echo’s', 1.2, ratiosOf(unary.oneP99, echo.oneP99)),
      atLeast('batch of 100: keys for each call of the bare echo', 6, ratiosOf(batch, echo.perSecond)),
      atLeast('beside better-auth in memory', 5, ratiosOf(unary.perSecond, of(BETTER_AUTH_MEMORY).perSecond), ' times'),
      atLeast(
        'beside better-auth on SQLite',
        40,
        ratiosOf(unary.perSecond, of(BETTER_AUTH_SQLITE).perSecond),
        ' times',
      ),
      atLeast('beside Fastify with Redis, by batch', 1, ratiosOf(batch, of(FASTIFY).perSecond), ' times'),
    ],
    bars: all.map(({ what, keys, own }) => ({
      what,
      perSecond: median(keysOf(what, keys)),
      own,
    })),
  };
}
