/** Keys that are in memory, one a call and in batches, beside the bare transport and beside what else one could run. */
import { VerifyKeyResponse } from '../../../src/gen/keyreeve/v1/key_service.js';
import { startService } from '../../support/service.js';
import { type Arm, type Bench, inRounds, type Scenario } from '../bench.js';
import { type GrpcTarget, openClient, toBatchTarget, toUnaryTarget, verifyOne } from '../grpc-target.js';
import type { LoadTarget } from '../h2load.js';
import { createKey } from '../keys.js';
import { atLeast, atMost, median, ratiosOf, type Section, toMsText, toRatioText, toShort } from '../measured.js';
import { Opened } from '../opened.js';
import { installPeers, startProgram, startRedis } from '../programs.js';
import { quantile } from '../report.js';
import { WireClient } from '../wire.js';

const BATCHES = [1, 10, 100] as const;
const PACED_SHARE = 0.7;
const SINGLE_SECONDS_SHARE = 0.5;

export const hot: Scenario = {
  name: 'hot',
  what: 'keys in memory: unary, in batches, beside the bare transport, better-auth, and Fastify with Redis',
  measure,
};

interface Target {
  readonly what: string;
  readonly own: boolean;
  /** Asked by each call. */
  readonly keys: number;
  readonly load: LoadTarget;
  /** Absent: not measured at a share of its peak. */
  readonly grpc?: GrpcTarget;
  readonly probe: () => Promise<unknown>;
}

/** One figure a round. */
class Figures {
  readonly perSecond: number[] = [];
  readonly oneP50: number[] = [];
  readonly oneP99: number[] = [];
  readonly pacedP50: number[] = [];
  readonly pacedP99: number[] = [];
}

async function measure(bench: Bench): Promise<Section> {
  await installPeers((line) => bench.say(line));
  await using stack = new Opened();
  const targets = await openTargets(bench, stack);
  const figures = new Map<Target, Figures>(targets.map((target) => [target, new Figures()]));
  const arms = targets.map(
    (target): Arm =>
      (counts) =>
        load(bench, target, counts ? figures.get(target) : undefined),
  );
  await inRounds(bench, 'hot', arms);
  return toSection(targets, figures);
}

async function load(bench: Bench, { load, grpc, probe }: Target, figures: Figures | undefined): Promise<void> {
  await probe();
  const { perSecond } = await bench.h2load.peak(load, bench.seconds);
  // Answered once what was cut off at the end has been worked through, which takes the slowest of them long.
  await probe();
  const one = await bench.h2load.oneInFlight(load, bench.seconds * SINGLE_SECONDS_SHARE);
  figures?.perSecond.push(perSecond);
  figures?.oneP50.push(quantile(one.ms, 0.5));
  figures?.oneP99.push(quantile(one.ms, 0.99));
  if (!grpc) return;
  using client = await WireClient.open(grpc.wire);
  const pace = perSecond * PACED_SHARE;
  const paced = await client.keepPace(pace, Math.ceil(pace * bench.seconds), () => grpc.frame);
  if (paced.decisions.includes(-1)) throw new Error('a call failed that had been answered before');
  const ms = [...paced.ms];
  figures?.pacedP50.push(quantile(ms, 0.5));
  figures?.pacedP99.push(quantile(ms, 0.99));
}

async function openTargets(bench: Bench, stack: Opened): Promise<Target[]> {
  const { cores, folder } = bench;
  const service = stack.use(await startService());
  await cores.pin(service.pid, 'server');
  const tokens: string[] = [];
  for (let at = 0; at < Math.max(...BATCHES); at += 1) tokens.push((await createKey(service.keys, 'acme')).token);
  const token = tokens[0] ?? '';
  const toTarget = (what: string, own: boolean, keys: number, grpc: GrpcTarget): Target => {
    return { what, own, keys, load: grpc.load, grpc, probe: grpc.probe };
  };

  const answer = Buffer.from(VerifyKeyResponse.encode(await verifyOne(service.keys, token)).finish()).toString(
    'base64',
  );
  const echo = async (codec: 'generated' | 'raw') => {
    const { told } = stack.use(
      await startProgram<{ port: number }>(cores, 'server', 'servers/echo.mjs', [codec, answer]),
    );
    const address = `127.0.0.1:${told.port}`;
    const client = stack.adopt(openClient(address), (one) => one.close());
    return toUnaryTarget(client, address, token);
  };
  const peer = async (what: string, path: string, args: readonly string[]): Promise<Target> => {
    const { told } = stack.use(await startProgram<{ port: number; key: string }>(cores, 'server', path, args));
    return toPeer(what, `http://127.0.0.1:${told.port}/`, told.key);
  };

  const batches = await Promise.all(
    BATCHES.map(async (keys) => {
      const grpc = await toBatchTarget(service.keys, service.address, tokens.slice(0, keys));
      return toTarget(`BatchVerifyKeys, ${keys}`, true, keys, grpc);
    }),
  );
  const redis = stack.use(await startRedis(folder));
  return [
    toTarget(ECHO, false, 1, await echo('generated')),
    toTarget(RAW_ECHO, false, 1, await echo('raw')),
    toTarget(UNARY, true, 1, await toUnaryTarget(service.keys, service.address, token)),
    ...batches,
    await peer(FASTIFY, 'peers/fastify-redis.mjs', [`${redis.port}`]),
    await peer(BETTER_AUTH_MEMORY, 'peers/better-auth.mjs', ['memory', folder]),
    await peer(BETTER_AUTH_SQLITE, 'peers/better-auth.mjs', ['sqlite', folder]),
  ];
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
  return { what, own: false, keys: 1, load, probe: ask };
}

function toSection(targets: readonly Target[], figures: ReadonlyMap<Target, Figures>): Section {
  const of = (what: string): Figures => {
    const found = targets.find((target) => target.what === what);
    return (found && figures.get(found)) ?? new Figures();
  };
  const keysOf = (what: string, keys: number) => of(what).perSecond.map((calls) => calls * keys);
  const echo = of(ECHO);
  const unary = of(UNARY);
  const batch = keysOf('BatchVerifyKeys, 100', 100);
  const rows = targets.map((target) => {
    const its = figures.get(target) ?? new Figures();
    const keys = its.perSecond.map((calls) => calls * target.keys);
    return [
      target.what,
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
      'at even intervals, and a time counts from the moment at which the call was due.',
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
    bars: targets.map((target) => ({
      what: target.what,
      perSecond: median(keysOf(target.what, target.keys)),
      own: target.own,
    })),
  };
}
