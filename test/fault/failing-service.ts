/**
 * The service with faults in the places of its parts: it ends itself with SIGKILL where it is told to, sets its clocks or
 * stands still. A line on stdin is an `Order`. It is configured and stopped like the service itself, and takes arguments:
 * `--detour 1=2` leads connections of its own to port 1 to port 2, so that its network fails and nobody else's does;
 * `--no-sink` publishes to nobody.
 */
import net, { type NetConnectOpts } from 'node:net';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import type { Outbox } from '../../src/audit/outbox.js';
import { type AuditSink, type ReadableSink, SinkFault } from '../../src/audit/sink.js';
import { loadConfig } from '../../src/config/load.js';
import { formatProblem } from '../../src/config/problems.js';
import { isEmpty } from '../../src/keys/change.js';
import type { Clock } from '../../src/keys/clock.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { assembly, start } from '../../src/main.js';
import { StoreFault } from '../../src/store/faults.js';
import type { Following, FoundKey, Store } from '../../src/store/port.js';
import type { FailPoint, Order, Report } from './fail-points.js';

const { values } = parseArgs({
  options: { detour: { type: 'string', multiple: true, default: [] }, 'no-sink': { type: 'boolean', default: false } },
});
takeDetours(new Map(values.detour.map((detour) => detour.split('=').map(Number) as [number, number])));

const armed = new Map<FailPoint, number>();
/** Of both clocks: what they are off by, and how fast the monotonic one runs. */
const skew = { wallMs: 0, monotonicMs: 0, rate: 1 };
let hesitateMs = 0;
let ponderMs = 0;
let slowReadsMs = 0;
let reads = 0;
let following: Following | undefined;
let storeBackMs = Number.NEGATIVE_INFINITY;
let sinkBackMs = Number.NEGATIVE_INFINITY;

createInterface({ input: process.stdin }).on('line', (line) => {
  obey(JSON.parse(line) as Order);
});
// A service with nothing left to do ends, whoever could still give it an order.
process.stdin.unref();

function obey(order: Order): void {
  switch (order.order) {
    case 'die':
      armed.set(order.at, order.nth);
      break;
    case 'clock':
      setClocks(order.offsetMs, order.rate ?? 1);
      break;
    case 'sleep':
      standStill(order.ms);
      skew.monotonicMs -= order.ms * skew.rate;
      break;
    case 'hesitate':
      hesitateMs = order.ms;
      break;
    case 'ponder':
      ponderMs = order.ms;
      break;
    case 'slow-reads':
      slowReadsMs = order.ms;
      break;
    case 'report':
      report(order.report);
      break;
    case 'store-away':
      storeBackMs = performance.now() + order.ms;
      break;
    case 'sink-fails':
      sinkBackMs = performance.now() + order.ms;
      break;
  }
}

const config = await loadConfig(process.env);
if (Array.isArray(config)) throw new Error(config.map(formatProblem).join('\n'));
const clock: Clock = {
  now: () => new Date(Date.now() + skew.wallMs),
  monotonicMs: () => performance.now() * skew.rate + skew.monotonicMs,
};
await start(config, {
  clock,
  openStore: async (...given) => failingStore(await assembly.openStore(...given)),
  openSink: async (...given) => failingSink(values['no-sink'] ? openSinkOfNobody() : await assembly.openSink(...given)),
});

/** The monotonic clock goes on from where it is. */
function setClocks(wallMs: number, rate: number): void {
  skew.monotonicMs += performance.now() * (skew.rate - rate);
  Object.assign(skew, { wallMs, rate });
}

function standStill(ms: number): void {
  if (ms > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function report(number: number): void {
  const told: Report = { report: number, holds: following?.holds() ?? false, reads };
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

function takeDetours(detours: ReadonlyMap<number, number>): void {
  const { createConnection } = net;
  // As the driver of MongoDB calls it.
  net.createConnection = ((options: NetConnectOpts, ...rest: []) => {
    const detour = 'port' in options ? detours.get(options.port) : undefined;
    return createConnection(detour === undefined ? options : { ...options, port: detour }, ...rest);
  }) as typeof net.createConnection;
}

function passes(point: FailPoint): void {
  const left = armed.get(point);
  if (left === undefined) return;
  if (left <= 1) process.kill(process.pid, 'SIGKILL');
  armed.set(point, left - 1);
}

function failingStore(store: Store): Store {
  const outbox = failingOutbox(store.outbox);
  return withOthers<Store>(store, {
    async change(load, rule, deadline) {
      checkStore();
      const seen = { writes: false };
      const answer = await store.change(
        load,
        (state) => {
          const decided = rule(state);
          seen.writes = !isRefusal(decided) && !isEmpty(decided);
          if (seen.writes) {
            passes('before-commit');
            standStill(ponderMs);
            ponderMs = 0;
          }
          return decided;
        },
        deadline,
      );
      if (seen.writes) passes('before-answer');
      return answer;
    },
    async findByDigest(...given) {
      checkStore();
      return slowly(store.findByDigest(...given));
    },
    follow(follower) {
      const followed = store.follow(follower);
      following = followed;
      return withOthers<Following>(followed, {
        holds() {
          const yes = followed.holds();
          if (yes) {
            standStill(hesitateMs);
            hesitateMs = 0;
          }
          return yes;
        },
        async read(...given) {
          checkStore();
          return slowly(followed.read(...given));
        },
        ...(followed.readNow && { readNow: (...given) => readNow(followed, ...given) }),
      });
    },
    outbox,
  });
}

function readNow(following: Following, ...given: Parameters<Following['read']>): FoundKey | undefined {
  checkStore();
  reads += 1;
  standStill(slowReadsMs);
  return following.readNow?.(...given);
}

async function slowly<T>(reading: Promise<T>): Promise<T> {
  reads += 1;
  const read = await reading;
  if (slowReadsMs > 0) await sleep(slowReadsMs);
  return read;
}

function checkStore(): void {
  if (performance.now() < storeBackMs) throw new StoreFault('unavailable', 'the test has taken the store away');
}

function failingOutbox(outbox: Outbox): Outbox {
  return withOthers<Outbox>(outbox, {
    async replaceLeadership(expected, next) {
      const replaced = await outbox.replaceLeadership(expected, next);
      if (replaced) passes('while-leading');
      return replaced;
    },
  });
}

function failingSink<Sink extends AuditSink>(sink: Sink): Sink {
  return withOthers<AuditSink, Sink>(sink, {
    async publish(lane, events, timeoutMs) {
      const fails = performance.now() < sinkBackMs;
      if (fails || armed.get('within-batch') === 1) {
        const half = events.slice(0, Math.floor(events.length / 2));
        if (half.length > 0) await sink.publish(lane, half, timeoutMs);
      }
      passes('within-batch');
      if (fails) throw new SinkFault('unavailable', 'the test lets the sink fail');
      const end = await sink.publish(lane, events, timeoutMs);
      passes('before-mark');
      return end;
    },
  });
}

function openSinkOfNobody(): ReadableSink {
  return {
    name: 'nobody',
    kind: 'file',
    answered: true,
    batchBytesMax: 1 << 20,
    laneOf: () => 0,
    publish: () => Promise.resolve(0),
    readFrom: () => Promise.resolve({ entries: Readable.from([]), ends: new Map(), isEmpty: true }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** The part, with others in the places of some of its members, whatever else it has. */
function withOthers<T extends object, Part extends T = T>(part: Part, others: Partial<NoInfer<T>>): Part {
  return new Proxy(part, {
    get(_, name) {
      if (name in others) return Reflect.get(others, name) as unknown;
      const member = Reflect.get(part, name) as unknown;
      return typeof member === 'function' ? (member.bind(part) as unknown) : member;
    },
  });
}
